#!/bin/sh
# run: sh examples/curl.sh
# needs curl
# A whole answer, a streamed one, and one that ends at a stop string, with curl alone.
set -eu
url="${OPENAI_BASE_URL:-http://localhost:8000/v1}"
key="${OPENAI_API_KEY:-unused}"

ask() { # the request body, then further options of curl
    body=$1
    shift
    curl --silent --show-error --fail-with-body "$@" "$url/chat/completions" \
        --header "Authorization: Bearer $key" --header "Content-Type: application/json" --data "$body"
    echo
}

echo "--- whole"
ask '{"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "你好"}]}'

echo "--- streamed"
ask '{"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "count to 3"}], "stream": true}' --no-buffer

echo "--- stopped before 欢迎"
ask '{"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "你好"}], "stop": ["欢迎"]}'
