#!/bin/sh
# run: sh examples/curl.sh
# needs curl
# A whole answer, a streamed one, and one that ends at a stop string, with curl alone.
set -eu
url="${OPENAI_BASE_URL:-http://localhost:8000/v1}"
key="${OPENAI_API_KEY:-unused}"
model="${MODEL:-gpt-4o-mini}"

ask() { # the rest of the request body, then further options of curl
    body="{\"model\": \"$model\", $1}"
    shift
    curl --silent --show-error --fail-with-body "$@" "$url/chat/completions" \
        --header "Authorization: Bearer $key" --header "Content-Type: application/json" --data "$body"
    echo
}

echo "--- whole"
ask '"messages": [{"role": "user", "content": "你好"}]'

echo "--- streamed"
ask '"messages": [{"role": "user", "content": "count to 3"}], "stream": true' --no-buffer

echo "--- stopped before 欢迎"
ask '"messages": [{"role": "user", "content": "你好"}], "stop": ["欢迎"]'
