"""Write ``grafana/dashboards/gradserve.json``: ``python -m deploy.monitoring.make_dashboard``.

Grafana's own JSON repeats itself for every panel; this says only what differs.
"""

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent / "grafana" / "dashboards" / "gradserve.json"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH, HEIGHT = 8, 7  # of a panel; a row of the dashboard is 24 wide

# Title, unit, and each query with its legend.
PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    (
        "Requests a second, by endpoint",
        "reqps",
        [("sum by (handler) (rate(http_requests_total[1m]))", "{{handler}}")],
    ),
    (
        "Answers a second, by status",
        "reqps",
        [("sum by (status) (rate(http_requests_total[1m]))", "{{status}}")],
    ),
    (
        "Refusals a second, by reason",
        "reqps",
        [("sum by (reason) (rate(gradserve_refusals_total[1m]))", "{{reason}}")],
    ),
    (
        "Latency",
        "s",
        [
            (
                f"histogram_quantile({q}, sum by (le) "
                "(rate(http_request_duration_seconds_bucket[1m])))",
                f"p{round(q * 100)}",
            )
            for q in (0.5, 0.9, 0.99)
        ],
    ),
    (
        "Where the time goes, a request",
        "s",
        [
            (
                "sum by (stage) (rate(gradserve_stage_seconds_sum[1m])) / "
                "sum by (stage) (rate(gradserve_stage_seconds_count[1m]))",
                "{{stage}}",
            )
        ],
    ),
    (
        "Rows inferred a second, by model",
        "short",
        [
            (
                "sum by (model, version) (rate(nv_inference_count_total[1m]))",
                "{{model}} {{version}}",
            )
        ],
    ),
    (
        "Graph time a request, by model",
        "µs",
        [
            (
                "sum by (model) (rate(nv_inference_compute_infer_duration_us_total[1m])) / "
                "sum by (model) (rate(nv_inference_request_success_total[1m]))",
                "{{model}}",
            )
        ],
    ),
    (
        "Images a second, by format",
        "short",
        [("sum by (format) (rate(gradserve_images_total[1m]))", "{{format}}")],
    ),
    ("Places of the queue in use", "short", [("gradserve_queue_places", "places")]),
    ("Version in service", "short", [("gradserve_model_version", "{{model}}")]),
    (
        "Ready, models in service, refused versions",
        "short",
        [
            ("gradserve_ready", "ready"),
            ("gradserve_models_in_service", "models in service"),
            ("gradserve_refused_versions", "refused: {{model}}"),
        ],
    ),
    ("Memory, by worker", "bytes", [("process_resident_memory_bytes", "{{worker}}")]),
    (
        "Processor time, by worker",
        "percentunit",
        [("rate(process_cpu_seconds_total[1m])", "{{worker}}")],
    ),
    ("Open files, by worker", "short", [("process_open_fds", "{{worker}}")]),
    (
        "Log records dropped a second",
        "short",
        [("sum(rate(gradserve_log_records_dropped_total[1m]))", "records")],
    ),
    ("Uptime", "s", [("time() - gradserve_start_time_seconds", "oldest worker")]),
]


def dashboard() -> dict[str, Any]:
    """The dashboard, in Grafana's JSON model, schema version 39 (Grafana 11)."""
    return {
        "uid": "gradserve",
        "title": "gradserve",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": [
            {
                "id": number + 1,
                "type": "timeseries",
                "title": title,
                "datasource": DATASOURCE,
                "gridPos": {
                    "x": number % 3 * WIDTH,
                    "y": number // 3 * HEIGHT,
                    "w": WIDTH,
                    "h": HEIGHT,
                },
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "targets": [
                    {
                        "refId": chr(ord("A") + index),
                        "datasource": DATASOURCE,
                        "expr": query,
                        "legendFormat": legend,
                    }
                    for index, (query, legend) in enumerate(queries)
                ],
            }
            for number, (title, unit, queries) in enumerate(PANELS)
        ],
    }


def main() -> None:
    """Write the file."""
    TARGET.write_text(json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
