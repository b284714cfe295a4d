"""Answers as vendors write them: what each is charged for, by the vendor's own books.

Each has its source: a page of the vendor's documentation, or a file of an open source repository that keeps such
an answer (recorded ones where there are any). The texts around the usage are left out.
"""

# ruff: noqa: E501  # answers and sources as they are

from __future__ import annotations

from typing import Any, NamedTuple

from proxy.usage.tokens import Usage


class Case(NamedTuple):
    """One vendor's answer at one endpoint: a JSON answer, or the events of a stream."""

    endpoint: str
    source: str
    answer: dict[str, Any] | list[Any]
    usage: Usage | None


def chat(usage: Any, **rest: Any) -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}],
        "usage": usage,
    } | rest


def chunks(*usages: Any, choices: bool = False, **rest: Any) -> list[Any]:
    """A stream of chat chunks whose last ones have these usages."""
    delta = [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]
    return [
        {"choices": delta, "usage": None},
        *[{"choices": delta if choices else [], "usage": usage} | rest for usage in usages],
        "[DONE]",
    ]


def spoken(start: dict[str, Any], last: dict[str, Any]) -> list[Any]:
    """A stream of the Messages API."""
    return [
        {"type": "message_start", "message": {"id": "m", "content": [], "usage": start}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": last},
        {"type": "message_stop"},
    ]


def completed(usage: dict[str, Any]) -> list[Any]:
    """A stream of the Responses API."""
    return [
        {"type": "response.created", "response": {"id": "r", "usage": None}},
        {"type": "response.completed", "response": {"id": "r", "output": [], "usage": usage}},
    ]


_KEPT_NONE = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
_NO_CACHE = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation": _KEPT_NONE}
_GROQ = {
    "queue_time": 0.041, "prompt_tokens": 210, "prompt_time": 0.01, "completion_tokens": 15, "completion_time": 0.046,
    "total_tokens": 225, "total_time": 0.057,
}  # fmt: skip
_XAI = {
    "prompt_tokens": 307, "completion_tokens": 26, "total_tokens": 560,
    "prompt_tokens_details": {"text_tokens": 307, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 306},
    "completion_tokens_details": {
        "reasoning_tokens": 227, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
    },
    "num_sources_used": 0, "cost_in_usd_ticks": 1_497_500,
}  # fmt: skip

CASES: dict[str, Case] = {
    # --- OpenAI
    "openai chat": Case(
        "chat", "platform.openai.com/docs/guides/prompt-caching",
        chat({
            "prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 128, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }),
        Usage(2006, 1920, 0, 300, 128),
    ),
    "openai chat, sound": Case(
        "chat", "platform.openai.com/docs/guides/audio",
        chat({
            "prompt_tokens": 150, "completion_tokens": 90, "total_tokens": 240,
            "prompt_tokens_details": {"cached_tokens": 20, "audio_tokens": 100, "text_tokens": 50},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 70, "text_tokens": 20},
        }),
        Usage(150, 20, 0, 90, 0, False, 100, 70),
    ),
    "openai chat, stream": Case(
        "chat", "vercel/ai packages/openai/src/chat/__fixtures__/azure-model-router.1.chunks.txt",
        chunks({
            "completion_tokens": 78,
            "completion_tokens_details": {
                "accepted_prediction_tokens": 0, "audio_tokens": 0, "reasoning_tokens": 64,
                "rejected_prediction_tokens": 0,
            },
            "prompt_tokens": 15, "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 0}, "total_tokens": 93,
        }),
        Usage(15, 0, 0, 78, 64),
    ),
    "openai completions": Case(
        "completions", "vercel/ai packages/openai/src/completion/__fixtures__/openai-completion-text.json",
        {"choices": [{"text": "a"}], "usage": {"prompt_tokens": 14, "completion_tokens": 16, "total_tokens": 30}},
        Usage(14, 0, 0, 16),
    ),
    "openai completions, stream": Case(
        "completions", "vercel/ai packages/openai/src/completion/__fixtures__/openai-completion-text.chunks.txt",
        chunks({"prompt_tokens": 14, "completion_tokens": 16, "total_tokens": 30}),
        Usage(14, 0, 0, 16),
    ),
    "openai responses": Case(
        "responses", "vercel/ai packages/openai/src/responses/__fixtures__/openai-web-search-tool.1.json",
        {"id": "r", "output": [], "usage": {
            "input_tokens": 19681, "input_tokens_details": {"cached_tokens": 3712}, "output_tokens": 3773,
            "output_tokens_details": {"reasoning_tokens": 3136}, "total_tokens": 23454,
        }},
        Usage(19681, 3712, 0, 3773, 3136),
    ),
    "openai responses, stream": Case(
        "responses", "vercel/ai packages/openai/src/responses/__fixtures__/openai-web-search-tool.1.chunks.txt",
        completed({
            "input_tokens": 31073, "input_tokens_details": {"cached_tokens": 3712}, "output_tokens": 4416,
            "output_tokens_details": {"reasoning_tokens": 3712}, "total_tokens": 35489,
        }),
        Usage(31073, 3712, 0, 4416, 3712),
    ),
    "openai embeddings": Case(
        "embeddings", "vercel/ai packages/openai/src/embedding/__fixtures__/openai-embedding.json",
        {"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 12, "total_tokens": 12}},
        Usage(12),
    ),
    "openai transcriptions, what was heard": Case(
        "speech", "openai/openai-ruby lib/openai/models/audio/transcription.rb (Usage::Tokens)",
        {"text": "a", "usage": {
            "type": "tokens", "input_tokens": 209, "input_token_details": {"text_tokens": 12, "audio_tokens": 197},
            "output_tokens": 45, "total_tokens": 254,
        }},
        Usage(209, 0, 0, 45, 0, False, 197),
    ),
    "openai transcriptions, by the minute": Case(
        "speech", "vercel/ai packages/openai/src/transcription/__fixtures__/openai-transcription.json",
        {"text": "a", "usage": {"type": "duration", "seconds": 37}}, None,
    ),
    "openai moderations": Case(
        "moderations", "platform.openai.com/docs/api-reference/moderations/object",
        {"id": "modr-1", "model": "m", "results": [{"flagged": False, "categories": {}}]}, None,
    ),
    "azure, deepseek": Case(
        "chat", "vercel/ai packages/azure/src/__fixtures__/azure-deepseek-reasoning.1.chunks.txt",
        chunks({
            "prompt_tokens": 19, "total_tokens": 1739, "completion_tokens": 1720, "prompt_tokens_details": None,
            "reasoning_tokens": 0,
        }),
        Usage(19, 0, 0, 1720),
    ),
    "azure responses": Case(
        "responses", "vercel/ai packages/azure/src/__fixtures__/openai-file-search-tool.2.json",
        {"output": [], "usage": {
            "input_tokens": 3678, "input_tokens_details": {"cached_tokens": 2304}, "output_tokens": 536,
            "output_tokens_details": {"reasoning_tokens": 448}, "total_tokens": 4214,
        }},
        Usage(3678, 2304, 0, 536, 448),
    ),
    # --- Anthropic
    "anthropic": Case(
        "messages", "platform.claude.com/docs/en/build-with-claude/prompt-caching",
        {"type": "message", "usage": {
            "input_tokens": 50, "cache_read_input_tokens": 100_000, "cache_creation_input_tokens": 556,
            "cache_creation": {"ephemeral_5m_input_tokens": 456, "ephemeral_1h_input_tokens": 100},
            "output_tokens": 503, "service_tier": "standard",
        }},
        Usage(100_606, 100_000, 556, 503),
    ),
    "anthropic, no sum of what was written": Case(
        "messages", "pydantic/genai-prices prices/providers/anthropic.yml (each of the two has a price)",
        {"usage": {
            "input_tokens": 21, "output_tokens": 3,
            "cache_creation": {"ephemeral_5m_input_tokens": 8, "ephemeral_1h_input_tokens": 20},
        }},
        Usage(49, 0, 28, 3),
    ),
    "anthropic, thinking": Case(
        "messages", "vercel/ai packages/anthropic/src/__fixtures__/anthropic-claude-opus-5-reasoning-high.1.json",
        {"type": "message", "usage": {
            "input_tokens": 51, **_NO_CACHE, "output_tokens": 1699, "output_tokens_details": {"thinking_tokens": 139},
            "service_tier": "standard", "inference_geo": "global",
        }},
        Usage(51, 0, 0, 1699, 139),
    ),
    "anthropic, stream": Case(
        "messages",
        "vercel/ai packages/anthropic/src/__fixtures__/anthropic-code-execution-20260120-prompt-cache.1.chunks.txt",
        spoken(
            {
                "input_tokens": 2, "cache_creation_input_tokens": 3068, "cache_read_input_tokens": 0,
                "cache_creation": {"ephemeral_5m_input_tokens": 3068, "ephemeral_1h_input_tokens": 0},
                "output_tokens": 69, "service_tier": "standard",
            },
            {
                "input_tokens": 6, "cache_creation_input_tokens": 3337, "cache_read_input_tokens": 6289,
                "output_tokens": 198, "output_tokens_details": {"thinking_tokens": 0},
                "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
            },
        ),
        Usage(9632, 6289, 3337, 198),
    ),
    "anthropic, stream that ends with the output alone": Case(
        "messages", "vercel/ai packages/anthropic/src/__fixtures__/spliced-message-start.chunks.txt",
        spoken({"input_tokens": 17, "output_tokens": 1}, {"output_tokens": 65}),
        Usage(17, 0, 0, 65),
    ),
    "anthropic, compacted": Case(
        "messages", "platform.claude.com/docs/en/build-with-claude/compaction (sum across all iterations)",
        spoken(
            {"input_tokens": 60385, **_NO_CACHE, "output_tokens": 5, "service_tier": "standard"},
            {
                "input_tokens": 612, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "output_tokens": 2819,
                "iterations": [
                    {"input_tokens": 60385, "output_tokens": 522, **_NO_CACHE, "type": "compaction"},
                    {"input_tokens": 612, "output_tokens": 2819, **_NO_CACHE, "type": "message"},
                ],
            },
        ),
        Usage(60997, 0, 0, 3341),
    ),
    "anthropic, compacted, with a cache": Case(
        "messages", "pydantic/genai-prices tests/dataset/usages.json (test_anthropic_compaction_usage_with_cache)",
        {"type": "message", "usage": {
            "input_tokens": 180, **_NO_CACHE,
            "iterations": [
                {
                    "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 55096},
                    "cache_creation_input_tokens": 55096, "cache_read_input_tokens": 0, "input_tokens": 100,
                    "output_tokens": 82, "type": "compaction",
                },
                {**_NO_CACHE, "input_tokens": 180, "output_tokens": 8, "type": "message"},
            ],
            "output_tokens": 8,
        }},
        Usage(55376, 0, 55096, 90),
    ),
    "anthropic, advised by another model, which has its own price": Case(
        "messages", "pydantic/genai-prices tests/dataset/usages.json (test_anthropic_advisor_tool)",
        {"type": "message", "usage": {
            "input_tokens": 2390, **_NO_CACHE,
            "iterations": [
                {**_NO_CACHE, "input_tokens": 1128, "output_tokens": 110, "type": "message"},
                {**_NO_CACHE, "input_tokens": 2518, "model": "claude-opus-4-8", "output_tokens": 22,
                 "type": "advisor_message"},
                {**_NO_CACHE, "input_tokens": 1262, "output_tokens": 11, "type": "message"},
            ],
            "output_tokens": 121, "output_tokens_details": {"thinking_tokens": 28},
        }},
        Usage(2390, 0, 0, 121, 28),
    ),
    "anthropic, repeated by another model": Case(
        "messages", "vercel/ai packages/anthropic/src/__fixtures__/anthropic-fallback.json",
        {"type": "message", "usage": {
            "input_tokens": 412, "output_tokens": 264, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0,
            "iterations": [
                {"type": "message", "model": "a", "input_tokens": 408, "output_tokens": 0},
                {"type": "fallback_message", "model": "b", "input_tokens": 412, "output_tokens": 264},
            ],
        }},
        Usage(412, 0, 0, 264),
    ),
    "kimi messages, stream": Case(
        "messages", "maximhq/bifrost, tests of its package anthropic (frames of 2026-08-20, kimi-k3)",
        spoken(
            {
                "input_tokens": 173306, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "output_tokens": 0, "prompt_tokens": 173306, "cached_tokens": 0,
            },
            {
                "input_tokens": 250, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 173056,
                "output_tokens": 166, "output_tokens_details": {"thinking_tokens": 1}, "prompt_tokens": 173306,
                "completion_tokens": 166, "total_tokens": 173472, "cached_tokens": 173056,
            },
        ),
        Usage(173306, 173056, 0, 166, 1),
    ),
    "kimi messages, stream without chat's names for the output": Case(
        "messages", "Wei-Shaw/sub2api, tests of its usage of Kimi",
        spoken(
            {"input_tokens": 173306, "prompt_tokens": 173306, "cached_tokens": 0},
            {
                "input_tokens": 250, "cache_read_input_tokens": 173056, "output_tokens": 166,
                "prompt_tokens": 173306, "cached_tokens": 173056,
            },
        ),
        Usage(173306, 173056, 0, 166),
    ),
    "qwen messages, stream": Case(
        "messages", "maximhq/bifrost, tests of its package anthropic (frames of 2026-08-20, qwen3.7-plus)",
        spoken(
            {"input_tokens": 8834, "output_tokens": 0},
            {
                "input_tokens": 18, "output_tokens": 426, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 8831, "cache_creation": {"ephemeral_5m_input_tokens": 0},
            },
        ),
        Usage(8849, 8831, 0, 426),
    ),
    "qwen messages, stream of which a cache had all": Case(
        "messages", "Wei-Shaw/sub2api, tests of its usage of Kimi (fully cached delta clears start input)",
        spoken(
            {"input_tokens": 8834, "output_tokens": 0},
            {"input_tokens": 0, "output_tokens": 426, "cache_read_input_tokens": 8834},
        ),
        Usage(8834, 8834, 0, 426),
    ),
    "minimax messages, stream": Case(
        "messages", "maximhq/bifrost, tests of its package anthropic (frames of 2026-08-20, MiniMax-M3)",
        spoken(
            {"input_tokens": 0, "output_tokens": 0, "service_tier": "standard"},
            {"cache_read_input_tokens": 8990, "input_tokens": 1, "output_tokens": 2, "service_tier": "standard"},
        ),
        Usage(8991, 8990, 0, 2),
    ),
    # --- vendors of their own models
    "deepseek": Case(
        "chat", "vercel/ai packages/deepseek/src/chat/__fixtures__/deepseek-tool-call.json",
        chat({
            "prompt_tokens": 339, "completion_tokens": 92, "total_tokens": 431,
            "prompt_tokens_details": {"cached_tokens": 320}, "completion_tokens_details": {"reasoning_tokens": 48},
            "prompt_cache_hit_tokens": 320, "prompt_cache_miss_tokens": 19,
        }),
        Usage(339, 320, 0, 92, 48),
    ),
    "deepseek, hits alone": Case(
        "chat", "api-docs.deepseek.com/guides/kv_cache",
        chunks({
            "prompt_tokens": 2989, "completion_tokens": 31, "total_tokens": 3020, "prompt_cache_hit_tokens": 2944,
            "prompt_cache_miss_tokens": 45,
        }),
        Usage(2989, 2944, 0, 31),
    ),
    "moonshot": Case(
        "chat", "vercel/ai packages/moonshotai/src/__fixtures__/moonshotai-reasoning.json",
        chat({
            "prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50, "cached_tokens": 10,
            "completion_tokens_details": {"reasoning_tokens": 22},
        }),
        Usage(20, 10, 0, 30, 22),
    ),
    "moonshot, stream": Case(
        "chat", "platform.kimi.ai/docs/guide/utilize-the-streaming-output-feature-of-kimi-api",
        [
            {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]},
            {"choices": [{
                "index": 0, "delta": {}, "finish_reason": "stop",
                "usage": {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32},
            }]},
            "[DONE]",
        ],
        Usage(19, 0, 0, 13),
    ),
    "groq": Case(
        "chat", "pydantic/genai-prices tests/dataset/usages.json (test_groq/test_tool_use_failed_error)",
        chat({
            "completion_time": 0.57, "completion_tokens": 96, "completion_tokens_details": {"reasoning_tokens": 59},
            "prompt_time": 0.56, "prompt_tokens": 336, "prompt_tokens_details": {"cached_tokens": 256},
            "queue_time": 0.005, "total_time": 1.14, "total_tokens": 432,
        }),
        Usage(336, 256, 0, 96, 59),
    ),
    "groq, stream": Case(
        "chat", "vercel/ai packages/groq/src/__fixtures__/groq-tool-call.chunks.txt",
        chunks(_GROQ, choices=True, x_groq={"id": "req_1", "usage": _GROQ}),
        Usage(210, 0, 0, 15),
    ),
    "groq, stream with its own member alone": Case(
        "chat", "console.groq.com/docs/api-reference#chat-create",
        [{"choices": [], "x_groq": {"id": "req_1", "usage": _GROQ}}, "[DONE]"],
        Usage(210, 0, 0, 15),
    ),
    "mistral": Case(
        "chat", "pydantic/genai-prices tests/dataset/usages.json (test_tool_choice_matrix, mistral)",
        chat({"completion_tokens": 12, "num_cached_tokens": 69, "prompt_tokens": 70, "total_tokens": 82}),
        Usage(70, 69, 0, 12),
    ),
    "mistral, stream": Case(
        "chat", "vercel/ai packages/mistral/src/__fixtures__/mistral-incremental-tool-call.chunks.txt",
        chunks({
            "prompt_tokens": 171, "total_tokens": 185, "completion_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 128},
        }),
        Usage(171, 128, 0, 14),
    ),
    "mistral, sound by the second": Case(
        "chat", "docs.mistral.ai/capabilities/audio (its total has tokens of sound, which is paid for by time)",
        chat({"prompt_audio_seconds": 203, "prompt_tokens": 4, "total_tokens": 3264, "completion_tokens": 635}),
        Usage(4, 0, 0, 635),
    ),
    "xai": Case(
        "chat", "vercel/ai packages/openai-compatible/src/chat/__fixtures__/xai-tool-call.chunks.txt",
        chat(_XAI), Usage(307, 306, 0, 253, 227),
    ),
    "xai, stream": Case(
        "chat", "vercel/ai packages/openai-compatible/src/chat/__fixtures__/xai-tool-call.chunks.txt",
        chunks(_XAI), Usage(307, 306, 0, 253, 227),
    ),
    "xai responses": Case(
        "responses", "vercel/ai packages/xai/src/responses/__fixtures__/xai-x-search-tool.chunks.txt",
        completed({
            "input_tokens": 27236, "input_tokens_details": {"cached_tokens": 4585}, "output_tokens": 3077,
            "output_tokens_details": {"reasoning_tokens": 1091}, "total_tokens": 30313, "num_sources_used": 0,
            "num_server_side_tools_used": 6, "context_details": {"input_tokens": 80, "output_tokens": 20},
        }),
        Usage(27236, 4585, 0, 3077, 1091),
    ),
    "gemini by openai's api": Case(
        "chat", "discuss.ai.google.dev/t/question-with-usage-in-openai-compatibility/98760",
        chat({"completion_tokens": 102, "prompt_tokens": 758, "total_tokens": 1725}),
        Usage(758, 0, 0, 967),
    ),
    "gemini": Case(
        "chat", "pydantic/genai-prices tests/dataset/usages.json (test_google_model_cached_content)",
        {"candidates": [{"content": {}}], "usageMetadata": {
            "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 3512}], "cachedContentTokenCount": 3512,
            "candidatesTokenCount": 2, "promptTokenCount": 3520,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3520}], "serviceTier": "standard",
            "thoughtsTokenCount": 42, "totalTokenCount": 3564,
        }},
        Usage(3520, 3512, 0, 44, 42),
    ),
    "gemini, stream": Case(
        "chat", "vercel/ai packages/google/src/__fixtures__/google-vertex-stream-tool-call-arguments-nested.1.chunks.txt",
        [
            {"candidates": [], "usageMetadata": {"trafficType": "ON_DEMAND"}},
            {"candidates": [], "usageMetadata": {
                "promptTokenCount": 31, "candidatesTokenCount": 684, "totalTokenCount": 1741, "thoughtsTokenCount": 1026,
                "trafficType": "ON_DEMAND", "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 684}],
            }},
        ],
        Usage(31, 0, 0, 1710, 1026),
    ),
    "gemini, tools": Case(
        "chat", "pydantic/genai-prices tests/dataset/usages.json (test_google_model_web_search_tool)",
        {"usageMetadata": {
            "candidatesTokenCount": 201, "promptTokenCount": 17, "thoughtsTokenCount": 213,
            "toolUsePromptTokenCount": 119, "totalTokenCount": 550,
        }},
        Usage(136, 0, 0, 414, 213),
    ),
    "gemini, thoughts alone": Case(
        "chat", "pydantic/genai-prices tests/dataset/usages.json (test_auto_mode_with_function_and_builtin_tools)",
        {"usageMetadata": {
            "promptTokenCount": 432, "thoughtsTokenCount": 18, "toolUsePromptTokenCount": 78, "totalTokenCount": 528,
        }},
        Usage(510, 0, 0, 18, 18),
    ),
    "gemini, sound": Case(
        "chat", "pydantic/genai-prices tests/dataset/usages.json (test_multimodal_tool_return_matrix, audio)",
        {"usageMetadata": {
            "candidatesTokenCount": 17, "promptTokenCount": 229, "totalTokenCount": 246,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 85}, {"modality": "AUDIO", "tokenCount": 144}],
        }},
        Usage(229, 0, 0, 17, 0, False, 144),
    ),
    "gemini embeddings": Case(
        "embeddings", "pydantic/genai-prices tests/dataset/usages.json (test_google_task_prefix)",
        {"embeddings": [[0.1]], "usageMetadata": {
            "promptTokenCount": 7, "promptTokenDetails": [{"modality": "TEXT", "tokenCount": 7}],
        }},
        Usage(7),
    ),
    "perplexity": Case(
        "chat", "vercel/ai packages/perplexity/src/__fixtures__/perplexity-text.json",
        {"usage": {"prompt_tokens": 11, "completion_tokens": 392, "total_tokens": 403}, "citations": ["https://a"],
         "choices": [{"index": 0, "message": {"content": "a"}}]},
        Usage(11, 0, 0, 392),
    ),
    # Its cost says so: 11,395 written, 193,947 of reasoning and 19,028 read are three amounts of their own.
    "perplexity, research": Case(
        "chat", "docs.perplexity.ai/getting-started/pricing; docs.perplexity.ai/getting-started/models/sonar-deep-research",
        chat({
            "prompt_tokens": 33, "completion_tokens": 11395, "total_tokens": 11428, "citation_tokens": 19028,
            "num_search_queries": 21, "reasoning_tokens": 193_947,
            "cost": {
                "input_tokens_cost": 0.0, "output_tokens_cost": 0.091, "citation_tokens_cost": 0.038,
                "reasoning_tokens_cost": 0.582, "search_queries_cost": 0.105, "total_cost": 0.816,
            },
        }),
        Usage(19_061, 0, 0, 205_342, 193_947),
    ),
    "cohere": Case(
        "chat", "vercel/ai packages/cohere/src/__fixtures__/cohere-tool-call.json; docs.cohere.com/v2/docs/how-does-cohere-pricing-work",
        {"id": "c", "message": {"content": []}, "usage": {
            "billed_units": {"input_tokens": 119, "output_tokens": 52},
            "tokens": {"input_tokens": 1549, "output_tokens": 103}, "cached_tokens": 992,
        }},
        Usage(119, 0, 0, 52),
    ),
    "cohere, stream": Case(
        "chat", "vercel/ai packages/cohere/src/__fixtures__/cohere-tool-call.chunks.txt",
        [
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "a"}}}},
            {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL", "usage": {
                "billed_units": {"input_tokens": 119, "output_tokens": 44},
                "tokens": {"input_tokens": 1549, "output_tokens": 95}, "cached_tokens": 1504,
            }}},
        ],
        Usage(119, 0, 0, 44),
    ),
    "cohere, tokens alone": Case(
        "chat", "pydantic/genai-prices prices/providers/cohere.yml (api_flavor: tokens)",
        {"usage": {"tokens": {"input_tokens": 71, "output_tokens": 5}, "cached_tokens": 64}},
        Usage(71, 64, 0, 5),
    ),
    "cohere embeddings": Case(
        "embeddings", "vercel/ai packages/cohere/src/__fixtures__/cohere-embedding.json",
        {"embeddings": {"float": [[0.1]]}, "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 10}}},
        Usage(10),
    ),
    "cohere rerank, by the search": Case(
        "rerank", "vercel/ai packages/cohere/src/reranking/__fixtures__/cohere-reranking.1.json",
        {"results": [{"index": 1, "relevance_score": 0.1}],
         "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}},
        None,
    ),
    "qwen": Case(
        "chat", "vercel/ai packages/alibaba/src/__fixtures__/alibaba-reasoning.json",
        chat({
            "prompt_tokens": 24, "completion_tokens": 1668, "total_tokens": 1692,
            "completion_tokens_details": {"reasoning_tokens": 1353}, "prompt_tokens_details": {"cached_tokens": 0},
        }),
        Usage(24, 0, 0, 1668, 1353),
    ),
    "qwen, a cache by request": Case(
        "chat", "vercel/ai packages/alibaba/src/convert-alibaba-usage.ts; alibabacloud.com/help/model-studio/context-cache",
        chat({
            "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_creation_input_tokens": 20},
            "completion_tokens_details": {"reasoning_tokens": 10},
        }),
        Usage(100, 60, 20, 50, 10),
    ),
    "zhipu": Case(
        "chat", "pydantic/genai-prices tests/dataset/usages.json (test_zai)",
        chat({
            "completion_tokens": 369, "completion_tokens_details": {"reasoning_tokens": 366}, "prompt_tokens": 13,
            "prompt_tokens_details": {"cached_tokens": 0}, "total_tokens": 382,
        }),
        Usage(13, 0, 0, 369, 366),
    ),
    "minimax": Case(
        "chat", "pydantic/genai-prices prices/providers/minimax.yml (api_flavor: chat)",
        chunks({
            "total_tokens": 885, "total_characters": 0, "prompt_tokens": 769, "completion_tokens": 116,
            "completion_tokens_details": {"reasoning_tokens": 37}, "prompt_tokens_details": {"cached_tokens": 443},
        }, base_resp={"status_code": 0}),
        Usage(769, 443, 0, 116, 37),
    ),
    # --- those who serve others' models
    "openrouter": Case(
        "chat", "pydantic/genai-prices tests/dataset/usages.json (test_openrouter_cache_messages_anthropic_real_api)",
        chat({
            "completion_tokens": 100, "prompt_tokens": 3214, "total_tokens": 3314, "cost": 0.01355025, "is_byok": False,
            "completion_tokens_details": {"audio_tokens": 0, "image_tokens": 0, "reasoning_tokens": 0},
            "prompt_tokens_details": {
                "audio_tokens": 0, "cache_write_tokens": 3211, "cached_tokens": 0, "video_tokens": 0,
            },
        }),
        Usage(3214, 0, 3211, 100),
    ),
    "openrouter responses": Case(
        "responses", "pydantic/genai-prices tests/dataset/usages.json (test_openrouter_responses_prompt_cache_e2e)",
        {"output": [], "usage": {
            "cost": 0.025265, "input_tokens": 4020, "output_tokens": 5, "total_tokens": 4025,
            "input_tokens_details": {"cache_write_tokens": 4012, "cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }},
        Usage(4020, 0, 4012, 5),
    ),
    "together rerank": Case(
        "rerank", "vercel/ai packages/togetherai/src/reranking/__fixtures__/togetherai-reranking.1.json",
        {"results": [], "usage": {"prompt_tokens": 2966, "completion_tokens": 0, "total_tokens": 2966}},
        Usage(2966),
    ),
    "hugging face": Case(
        "chat", "pydantic/genai-prices tests/dataset/usages.json (test_huggingface/test_request_structured_response)",
        chat({"cached_tokens": 0, "completion_tokens": 29, "prompt_tokens": 19, "total_tokens": 48}),
        Usage(19, 0, 0, 29),
    ),
    "fireworks": Case(
        "chat", "pydantic/genai-prices prices/providers/fireworks.yml; docs.fireworks.ai/guides/prompt-caching",
        chat({
            "prompt_tokens": 63, "completion_tokens": 214, "total_tokens": 277,
            "prompt_tokens_details": {"cached_tokens": 32},
        }, perf_metrics={"prompt-tokens": 63, "cached-prompt-tokens": 32}),
        Usage(63, 32, 0, 214),
    ),
    "cerebras": Case(
        "chat", "pydantic/genai-prices tests/dataset/usages.json (test_cerebras_thinking_part_survives_multiturn)",
        chat({
            "completion_tokens": 37, "prompt_tokens": 79, "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {
                "accepted_prediction_tokens": 0, "reasoning_tokens": 25, "rejected_prediction_tokens": 0,
            },
            "total_tokens": 116,
        }),
        Usage(79, 0, 0, 37, 25),
    ),
    "bedrock converse": Case(
        "chat", "docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html; pydantic/genai-prices dataset",
        {"output": {}, "usage": {
            "cacheDetails": [{"inputTokens": 2074, "ttl": "5m"}], "cacheReadInputTokenCount": 0,
            "cacheReadInputTokens": 0, "cacheWriteInputTokenCount": 2074, "cacheWriteInputTokens": 2074,
            "inputTokens": 3, "outputTokens": 288, "serverToolUsage": {}, "totalTokens": 2365,
        }},
        Usage(2077, 0, 2074, 288),
    ),
    "bedrock converse, read": Case(
        "chat", "github.com/Portkey-AI/gateway/pull/1211 (untransformed)",
        {"usage": {
            "cacheReadInputTokenCount": 10536, "cacheReadInputTokens": 10536, "cacheWriteInputTokens": 0,
            "inputTokens": 368, "outputTokens": 19, "totalTokens": 10923,
        }},
        Usage(10_904, 10_536, 0, 19),
    ),
    # --- gateways, which translate
    "portkey, cache beside the prompt": Case(
        "chat", "github.com/Portkey-AI/gateway/pull/1211",
        chat({
            "prompt_tokens": 368, "completion_tokens": 19, "total_tokens": 10923, "cache_read_input_tokens": 10536,
            "cache_creation_input_tokens": 0,
        }),
        Usage(10_904, 10_536, 0, 19),
    ),
    "litellm, cache within the prompt": Case(
        "chat", "docs.litellm.ai/docs/completion/prompt_caching",
        chat({
            "prompt_tokens": 10904, "completion_tokens": 19, "total_tokens": 10923, "cache_read_input_tokens": 10536,
            "cache_creation_input_tokens": 100, "prompt_tokens_details": {"cached_tokens": 10536},
        }),
        Usage(10_904, 10_536, 100, 19),
    ),
    "litellm, reads within the prompt and writes beside": Case(
        "chat", "github.com/BerriAI/litellm/issues/15270",
        chat({
            "prompt_tokens": 1100, "completion_tokens": 50, "total_tokens": 1450,
            "prompt_tokens_details": {"cached_tokens": 1000}, "cache_read_input_tokens": 1000,
            "cache_creation_input_tokens": 300,
        }),
        Usage(1400, 1000, 300, 50),
    ),
    # --- servers
    "vllm": Case(
        "chat", "vllm-project/vllm vllm/entrypoints/openai/engine/protocol.py (UsageInfo)",
        chat({"prompt_tokens": 15, "total_tokens": 20, "completion_tokens": 5, "prompt_tokens_details": None},
             prompt_logprobs=None, kv_transfer_params=None),
        Usage(15, 0, 0, 5),
    ),
    "vllm, running totals": Case(
        "chat", "vllm-project/vllm vllm/entrypoints/openai/engine/protocol.py (continuous_usage_stats)",
        [
            *[{"choices": [{"delta": {"content": "a"}}],
               "usage": {"prompt_tokens": 15, "total_tokens": 15 + n, "completion_tokens": n}} for n in range(6)],
            {"choices": [], "usage": {"prompt_tokens": 15, "total_tokens": 20, "completion_tokens": 5}}, "[DONE]",
        ],
        Usage(15, 0, 0, 5),
    ),
    "sglang": Case(
        "chat", "sgl-project/sglang python/sglang/srt/entrypoints/openai/usage_processor.py",
        chat({
            "prompt_tokens": 15, "total_tokens": 45, "completion_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 8}, "reasoning_tokens": 20, "completion_tokens_details": None,
        }),
        Usage(15, 8, 0, 30, 20),
    ),
    "llama.cpp": Case(
        "chat", "ggml-org/llama.cpp tools/server/README.md",
        chunks({
            "completion_tokens": 82, "prompt_tokens": 24817, "total_tokens": 24899,
            "prompt_tokens_details": {"cached_tokens": 23780},
        }, timings={"cache_n": 23780, "prompt_n": 1037, "prompt_ms": 253.076, "predicted_n": 82}),
        Usage(24_817, 23_780, 0, 82),
    ),
    "llama.cpp, nobody asked for the usage": Case(
        "chat", "ggml-org/llama.cpp tools/server/README.md (in context are prompt_n + cache_n + predicted_n)",
        [
            {"choices": [{"index": 0, "delta": {"content": "a"}}]},
            {"choices": [{"finish_reason": "stop", "index": 0, "delta": {}}], "timings": {
                "cache_n": 6151, "prompt_n": 4, "prompt_ms": 196.08, "prompt_per_second": 20.4, "predicted_n": 244,
                "predicted_ms": 8121.8, "draft_n": 165, "draft_n_accepted": 147,
            }},
            "[DONE]",
        ],
        Usage(6155, 6151, 0, 244),
    ),
    "ollama": Case(
        "chat", "ollama/ollama docs/api/usage.mdx",
        {"model": "gemma4", "response": "a", "done": True, "done_reason": "stop", "total_duration": 174_560_334,
         "prompt_eval_count": 11, "prompt_eval_duration": 13_074_791, "eval_count": 18, "eval_duration": 52_479_709},
        Usage(11, 0, 0, 18),
    ),
    "ollama by openai's api": Case(
        "chat", "pydantic/genai-prices tests/dataset/usages.json (test_ollama)",
        chat({"completion_tokens": 15, "prompt_tokens": 136, "total_tokens": 151}),
        Usage(136, 0, 0, 15),
    ),
    "lm studio responses": Case(
        "responses", "vercel/ai packages/open-responses/src/responses/__fixtures__/lmstudio-tool-call.2.chunks.txt",
        completed({
            "input_tokens": 182, "output_tokens": 60, "total_tokens": 242,
            "input_tokens_details": {"cached_tokens": 52}, "output_tokens_details": {"reasoning_tokens": 47},
        }),
        Usage(182, 52, 0, 60, 47),
    ),
    # --- vectors and scores
    "jina rerank": Case(
        "rerank", "mudler/LocalAI core/schema/jina.go",
        {"model": "m", "usage": {"total_tokens": 15, "prompt_tokens": 15}, "results": []}, Usage(15),
    ),
    "voyage rerank": Case(
        "rerank", "vercel/ai packages/voyage/src/reranking/__fixtures__/voyage-reranking.1.json",
        {"object": "list", "data": [], "model": "rerank-2.5", "usage": {"total_tokens": 12}}, Usage(12),
    ),
    "a list of scores": Case(
        "rerank", "huggingface/text-embeddings-inference docs/openapi.json (/rerank)",
        [{"index": 0, "score": 0.9}], None,
    ),
}  # fmt: skip
