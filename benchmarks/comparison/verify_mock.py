"""Checks the mock upstream, or a proxy in front of it, with the real openai SDK.

usage: python verify_mock.py BASE_URL [MODEL [HEADER=VALUE ...]]     (BASE_URL ends in /v1)

    benchmarks/.work/bin/mock 19000 & python verify_mock.py http://127.0.0.1:19000/v1
    python verify_mock.py http://127.0.0.1:8080/v1 mock/mock-model
"""

import sys
import time

import openai

if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
    sys.exit(__doc__)
base = sys.argv[1]
model = sys.argv[2] if len(sys.argv) > 2 else "mock-model"
headers = dict(a.split("=", 1) for a in sys.argv[3:])
c = openai.OpenAI(base_url=base, api_key="sk-bench", default_headers=headers, max_retries=0, timeout=20)

r = c.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
assert r.choices[0].message.content.startswith("A reverse proxy"), r
assert r.choices[0].finish_reason == "stop" and r.usage.total_tokens == 251, r
print("chat ok:", r.id, r.usage.total_tokens)

t = time.perf_counter()
stream = c.chat.completions.create(
    model=model,
    stream=True,
    stream_options={"include_usage": True},
    messages=[{"role": "user", "content": "[mock chunks=30 delay=10] hi"}],
)
n = 0
usage = None
fin = None
for ch in stream:
    for chc in ch.choices:
        if chc.delta.content and "@T" in chc.delta.content:
            n += chc.delta.content.count("@T")
        fin = chc.finish_reason or fin
    usage = ch.usage or usage
dt = time.perf_counter() - t
assert n == 30 and fin == "stop" and usage and usage.total_tokens == 251, (n, fin, usage)
assert 0.28 < dt < 2, dt
print(f"stream ok: {n} chunks in {dt * 1000:.0f} ms (290 at the upstream), usage {usage.total_tokens}")

status = 200
try:
    c.chat.completions.create(model=model, messages=[{"role": "user", "content": "[mock status=429] hi"}])
except openai.APIStatusError as e:
    status = e.status_code
assert status == 429, status
print("status ok:", status)
try:
    e = c.embeddings.create(model=model, input="hi")
    print("embeddings ok:", len(e.data[0].embedding))
except openai.OpenAIError as e:
    print("embeddings:", type(e).__name__, str(e)[:100])
