# The llm command: a model of a file, and an address without one. Each line of output is "NAME: TEXT".
set -eu
cat >"$LLM_USER_PATH/extra-openai-models.yaml" <<END
- {model_id: demo, model_name: chatglm2-6b, api_base: "$OPENAI_BASE_URL", supports_tools: true, supports_schema: true}
END
cat >weather.py <<'END'
def get_weather(city: str, days: int) -> str:
    "The weather of a city."
    return f"{city}: sun for {days} days"
END
weather='What is the weather in Paris for 3 days?'

echo "chat: $(llm -m demo --no-stream 'count to 3')"
echo "streamed: $(llm -m demo 'count to 3')"
echo "further: $(llm -m demo -c 'count to 2')"
echo "counted: $(llm logs -n 3 --json | grep -c '"output_tokens": [1-9]')"
echo "told: $(llm -m demo --no-stream --functions weather.py --td "$weather" 2>calls)"
echo "told_again: $(llm -m demo --functions weather.py --td "$weather" 2>>calls)"
echo "calls: $(grep 'Tool call' calls | tr '\n' ' ')"
echo "structured: $(llm -m demo --schema 'city, days int' "$weather")"
echo "endpoint: $(llm openai endpoint "$OPENAI_BASE_URL" -m chatglm2-6b 'count to 3')"
echo "responses: $(llm openai endpoint "$OPENAI_BASE_URL" --responses -m chatglm2-6b 'count to 3')"
echo "refused: $(llm -m demo -o max_tokens 0 'count to 3' 2>&1 || true)"
