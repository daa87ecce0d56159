-- wrk script: POST the same body over and over, and print what was measured as one line of JSON.
-- Usage: wrk ... -s post.lua URL -- BODY_FILE CONTENT_TYPE

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  wrk.headers["Content-Type"] = args[2]
  file:close()
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"seconds": %.6f, "responses": %d, "refused": %d, "broken": %d, "timeouts": %d, ' ..
    '"p50_ms": %.4f, "p99_ms": %.4f, "max_ms": %.4f}\n',
    summary.duration / 1e6, summary.requests, errors.status,
    errors.connect + errors.read + errors.write, errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
