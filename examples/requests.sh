#!/bin/sh
# f′ at three places, and what is in a picture, with curl.
set -eu
address=${1:-http://127.0.0.1:8000}
here=$(dirname "$0")

curl --fail-with-body --silent --show-error "$address/gradient" \
  --header 'Content-Type: application/json' --data '{"x": [3.0, 0.1, -0.5]}'
echo
curl --fail-with-body --silent --show-error "$address/classify?top_k=1" --form "file=@$here/cat.jpg"
echo
