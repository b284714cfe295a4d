"""What a finished answer teaches the live row."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from proxy.access.admission import Most
from proxy.config.parse import parse
from proxy.config.settings import ModelConfig
from proxy.deployments.deployment import Deployment
from proxy.deployments.record import Record
from proxy.deployments.row import Row
from proxy.relay.exchange.charge import USUAL_PACE, account, estimated
from proxy.usage.tokens import Usage
from proxy.wire.framing import LengthBody
from proxy.wire.response import Response
from proxy.wire.response_head import read_response_head
from tests.support.fakes import RawClient, chunk, until
from tests.support.scripts import LAST, head, says
from tests.support.two_providers import rows

CONFIG = parse(
    '[providers.p]\nbase_url = "http://127.0.0.1:1/v1"\n[models."p/m"]\ninput_price = 2\noutput_price = 10\n'
)
COUNTS = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
USAGE = json.dumps({"usage": COUNTS}).encode()
GZIPPED = gzip.compress(USAGE, mtime=0)  # parameters are the same in every process that collects
EVENTS = b"data: {}\n\ndata: " + USAGE + b"\n\ndata: [DONE]\n\n"


STREAM = b"Content-Type: text/event-stream"


def passed(
    body: bytes, *lines: bytes, status: bytes = b"200 OK", whole: int | None = None, cuts: int = 1 << 20
) -> Response:
    """An answer of which a body has passed, in pieces of ``cuts``, of ``whole`` bytes that it has."""
    framing = LengthBody(len(body) if whole is None else whole)
    answer = Response(read_response_head(b"\r\n".join((b"HTTP/1.1 " + status, *lines))), framing, 1)
    for at in range(0, len(body), cuts):
        framing.feed(body[at : at + cuts])
        answer.pass_on(body[at : at + cuts])
    return answer


def record_of(
    endpoint: str = "chat", streamed: bool = True, model: ModelConfig = CONFIG.models["p/m"]
) -> Record:
    """Of an attempt that was asked at 1.0."""
    return Record(Deployment(model, CONFIG.providers["p"], usable=True), endpoint, streamed, 1.0)


def told(
    status: bytes, body: bytes, *lines: bytes, prices: bool = True
) -> tuple[Row, tuple[Usage | None, int | None]]:
    record = record_of(model=CONFIG.models["p/m"] if prices else ModelConfig("p/m", "p", "m"))
    record.first_byte(3.0)
    result = account(record, passed(body, *lines, status=status), "chat", 4000, 2.0, 5.0)
    assert record.is_over
    assert (record.row.in_flight, record.row.awaiting) == (0, 0)
    return record.row, result


def finished(status: bytes, body: bytes, *lines: bytes) -> Row:
    return told(status, body, *lines)[0]


def test_a_plain_answer():
    row = finished(b"200 OK", USAGE).snapshot(5.0)
    assert row["usd_per_request"] == pytest.approx(0.003)
    assert (row["output_tokens"], row["tokens_per_byte"]) == (100, 0.25)
    assert row["output_tokens_per_s"] is None


def test_a_stream_teaches_its_pace_too():
    row = finished(b"200 OK", EVENTS, STREAM).snapshot(5.0)
    assert row["usd_per_request"] == pytest.approx(0.003)
    assert row["output_tokens_per_s"] == pytest.approx(50)


@pytest.mark.parametrize("status", [b"400 Bad", b"403 No", b"404 None", b"422 Unprocessable"])
def test_a_requests_own_mistake_is_a_success_of_the_provider(status):
    row = finished(status, USAGE)
    assert row.success.mean() == 1.0
    assert row.last_error is None
    assert row.snapshot(5.0)["usd_per_request"] is None


@pytest.mark.parametrize(
    ("status", "body", "lines", "prices", "result"),
    [
        (b"200 OK", USAGE, (), True, (Usage(1000, 0, 0, 100), 3_000_000)),
        (b"200 OK", USAGE, (), False, (Usage(1000, 0, 0, 100), None)),
        (b"200 OK", EVENTS, (STREAM,), True, (Usage(1000, 0, 0, 100), 3_000_000)),
        (b"200 OK", b"{}", (), True, (None, None)),
        (b"200 OK", b"data: [DONE]\n\n", (STREAM,), True, (None, None)),
        (b"200 OK", USAGE, (b"Content-Encoding: gzip",), True, (None, None)),
        (b"400 Bad", USAGE, (), True, (None, None)),
    ],
)
def test_what_is_handed_back(status, body, lines, prices, result):
    row, found = told(status, body, *lines, prices=prices)
    assert found == result
    assert (row.snapshot(5.0)["usd_per_request"] is None) == (found[0] is None)


def test_what_is_over_already_is_not_ended_twice():
    """A client that left after the last event: its attempt was ended by that."""
    record = record_of()
    record.left(2.0)
    assert account(record, passed(USAGE), "chat", 4000, 2.0, 5.0)[1] == 3_000_000
    assert (record.row.in_flight, record.row.finished_count) == (0, 1)


@pytest.mark.parametrize(
    ("encoding", "body"), [(b"gzip", GZIPPED), (b"X-GZip", GZIPPED), (b"deflate", zlib.compress(USAGE))]
)
def test_a_compressed_answer_that_can_be_decoded(encoding, body):
    _, found = told(b"200 OK", body, b"Content-Encoding: " + encoding)
    assert found == (Usage(1000, 0, 0, 100), 3_000_000)
    _, found = told(b"200 OK", gzip.compress(EVENTS), b"Content-Encoding: gzip", STREAM)
    assert found == (Usage(1000, 0, 0, 100), 3_000_000)


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_usage_of_a_compressed_answer_that_passes(provider, start, streamed):
    body = gzip.compress(EVENTS if streamed else USAGE)
    lines = [b"Content-Encoding: gzip", b"Transfer-Encoding: chunked"]
    if streamed:
        lines.append(STREAM)
    provider.script = says(head(*lines), *(chunk(body[i : i + 7]) for i in range(0, len(body), 7)), LAST)
    server = await start(
        f'[providers.p]\nbase_url = "{provider.url}"\nauth = "none"\ncompression = "pass"\n'
        '[models."p/m"]\ninput_price = 2\noutput_price = 10\n'
    )
    client = await RawClient.connect(server)
    await client.post(b'{"model":"m","messages":[]}', extra=b"Accept-Encoding: gzip\r\n")
    status, fields, got = await client.response()
    assert (status, fields[b"content-encoding"], got) == (200, b"gzip", body)
    assert b"\r\nAccept-Encoding: gzip\r\n" in provider.seen[0][0]
    await until(lambda: server.gateway.completions.recent)
    (row,) = rows(server)
    assert (row["input_tokens"], row["output_tokens"], row["usd"]) == (1000, 100, pytest.approx(0.003))
    assert row["usage_source"] == "provider"


def test_a_compressed_answer_teaches_nothing_but_its_success():
    row = finished(b"200 OK", USAGE, b"Content-Encoding: gzip")
    assert row.success.mean() == 1.0
    assert row.snapshot(5.0)["usd_per_request"] is None


@pytest.mark.parametrize("lines", [(), (b"Content-Type: text/plain",), (b"Content-Type: application/json",)])
@pytest.mark.parametrize("begin", [b"", b": hello\n\n", b"event: x\n", b"\n\n"])
def test_a_stream_that_does_not_say_so(lines, begin):
    usage = Usage(1000, 0, 0, 100)
    assert told(b"200 OK", begin + EVENTS, *lines)[1] == (usage, 3_000_000)
    padded = begin + b"data: {}\n\n" * 5000 + EVENTS
    assert told(b"200 OK", padded, *lines)[1] == (usage, 3_000_000)


def record_at(pace: float = 0.0, endpoint: str = "chat", streamed: bool = True, samples: int = 3) -> Record:
    """One that was asked at 1.0, of a member that was seen to write so many tokens a second."""
    record = record_of(endpoint, streamed)
    for _ in range(samples if pace else 0):
        record.deployment.row("chat", True).paced(1.0, pace, "somebody")
    return record


def output_of(
    record: Record, answer: Response | None, most: Most, now: float, *, is_over: bool = False
) -> int:
    usage = estimated(record, answer, "chat", most, now, is_over=is_over, is_async=False)[0]
    assert usage is not None and usage.estimated and usage.input_tokens == 10
    return usage.output_tokens


def test_time_is_charged_as_often_as_answers_were_wanted():
    assert output_of(record_at(100.0), None, Most(10, 10**6), 11.0) == 1000
    assert output_of(record_at(100.0), None, Most(10, 10**6, 20), 11.0) == 20_000
    assert output_of(record_at(100.0), None, Most(10, 9000, 20), 11.0) == 9000  # what was reserved


def test_what_a_client_does_not_read_is_written_all_the_same():
    record = record_at(100.0)
    record.held_s = 9.0
    assert output_of(record, None, Most(10, 9000), 11.0) == 1000
    assert output_of(record, None, Most(10, 9000), 11.0, is_over=True) == 100  # it was ready by then


def test_a_member_of_which_nothing_is_known():
    assert output_of(record_at(), None, Most(10, 9000), 11.0) == 10 * USUAL_PACE
    assert output_of(record_at(100.0, samples=2), None, Most(10, 9000), 11.0) == 10 * USUAL_PACE
    assert output_of(record_at(), None, Most(10, 9000), 11.0, is_over=True) == 0
    plain = record_at(100.0, "completions", False)  # the same model, at another endpoint
    assert output_of(plain, None, Most(10, 9000), 11.0) == 1000


def stream_of(*events: bytes, done: bool = False) -> Response:
    """A stream of which so much has passed."""
    body = b"".join(b"data: %b\n\n" % event for event in events)
    return passed(body, STREAM, whole=len(body) + (0 if done else 1))


WORD = b'{"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}'
STOP = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'


def test_a_member_of_which_nothing_is_known_is_judged_by_the_answer_itself():
    """40 tokens in the last second of two: as many before that."""
    record = record_at()
    record.first_byte(2.0)
    assert output_of(record, stream_of(*[WORD] * 40), Most(10, 9000), 3.0) == 80


@pytest.mark.parametrize(("seconds", "words", "tokens"), [(10.0, 20, 1000), (0.3, 20, 30), (0.1, 20, 20)])
def test_the_larger_of_text_and_time(seconds, words, tokens):
    for is_over in (False, True):
        found = output_of(
            record_at(100.0), stream_of(*[WORD] * words), Most(10, 9000), 1.0 + seconds, is_over=is_over
        )
        assert found == pytest.approx(tokens, abs=1)


def usage_event(output: int, choices: bytes = b"[]") -> bytes:
    counts = b'{"prompt_tokens":10,"completion_tokens":%d}' % output
    return b'{"choices":%b,"usage":%b}' % (choices, counts)


def running(output: int, finish: bytes = b"null") -> bytes:
    return usage_event(output, b'[{"index":0,"delta":{"content":"x"},"finish_reason":%b}]' % finish)


@pytest.mark.parametrize(
    ("events", "answers", "told"),
    [
        ([WORD, STOP, usage_event(7)], 1, True),
        ([WORD, usage_event(7)], 1, True),  # no finish_reason, but beside no choice
        ([WORD, usage_event(7)], 2, True),
        ([running(1), running(2, b'"stop"')], 1, True),
        ([running(1), running(2, b'"stop"')], 2, False),  # the other may come behind it
        ([running(1), running(2)], 1, False),
        ([running(1), STOP], 1, False),  # a running total, and more may have followed
        ([usage_event(1), WORD], 1, False),
        ([usage_event(1)], 1, False),  # some begin with one
        ([WORD, STOP], 1, False),
        ([WORD, b'{"choices":[{"delta":{"content":"\\"usage\\":{"}}]}', STOP], 1, False),
        ([running(3), b"[DONE]"], 1, True),
    ],
)
def test_which_usage_is_the_last_word(events, answers, told):
    assert stream_of(*events).tells_all("chat", lambda: answers) is told


@pytest.mark.parametrize("left", [0, 2, 3, 30])
def test_half_a_usage_is_none(left):
    body = b"data: %b\n\n" % WORD + b"data: %b\n\n" % usage_event(7)
    answer = passed(body[: len(body) - left], STREAM, whole=len(body))
    assert answer.tells_all("chat") is (left <= 2)


def test_which_usage_of_messages_is_the_last_word():
    start = b'{"type":"message_start","message":{"usage":{"input_tokens":10,"output_tokens":1}}}'
    delta = b'{"type":"message_delta","delta":{"stop_reason":%b},"usage":{"output_tokens":7}}'
    assert not stream_of(start).tells_all("messages")
    assert not stream_of(start, delta % b"null").tells_all("messages")
    assert stream_of(start, delta % b'"end_turn"').tells_all("messages")


def paces(record: Record) -> list[float]:
    return [sample for _, *kept in record.row.pace.dump() for sample in kept]


class Somebody:
    def __init__(self, answers: int = 1, *, is_text: bool = True) -> None:
        self._answers = answers
        self.key_id = "key"
        self.is_text = is_text

    def answers(self) -> int:
        return self._answers


@pytest.mark.parametrize(
    ("words", "usage", "output_s", "now", "answers", "learned"),
    [
        (100, 100, 1.0, 3.0, 1, [99.0]),
        (100, 100, 1.0, 100.0, 1, [99.0]),  # a queue teaches nothing
        (16, 16, 1.0, 3.0, 1, []),
        (1, 1, 0.0, 3.0, 1, []),
        (100, 100, 1.0, 3.0, 128, []),
        (100, 300, 1.0, 4.0, 1, [100.0]),  # two thirds were hidden, and not in that second
        (100, 100, 0.001, 3.0, 1, []),  # a buffer was emptied
        (100, 100, 0.09, 3.0, 1, []),  # too short to tell
        (100, 100, 0.1, 3.0, 1, [990.0]),
        (100, 100, 30.0, 32.0, 1, []),
    ],
)
def test_what_teaches_the_pace(words, usage, output_s, now, answers, learned):
    record = record_at()
    answer = stream_of(*[WORD] * words, STOP, usage_event(usage), b"[DONE]", done=True)
    charge = account(record, answer, "chat", 4000, output_s, now, Somebody(answers))
    assert charge[0] == Usage(10, 0, 0, usage)
    assert paces(record) == pytest.approx(learned)


@pytest.mark.parametrize(("output", "learned"), [(127, []), (128, [64.0]), (9, [])])
def test_what_plain_answers_teach_of_the_pace(output, learned):
    record = record_at(streamed=False)
    answer = passed(b'{"usage":{"prompt_tokens":10,"completion_tokens":%d}}' % output)
    account(record, answer, "chat", 4000, 0.0, 3.0, Somebody())
    assert paces(record) == pytest.approx(learned)


@pytest.mark.parametrize("is_text", [True, False])
def test_pictures_teach_no_tokens_a_byte_of_text(is_text):
    record = record_at()
    asker = Somebody(is_text=is_text)
    told = usage_event(99).replace(b":10,", b":100,")
    account(record, stream_of(*[WORD] * 99, told, done=True), "chat", 400, 1.0, 3.0, asker)
    assert record.row.per_byte.count == int(is_text)
    assert record.row.charges.ratios is not None  # the rest is learned all the same


@pytest.mark.parametrize("facts", [{"asked_at": 3.0}, {"held_s": 0.5}])
def test_an_answer_before_the_request_was_there_and_held_time_teach_no_pace(facts):
    record = record_at()
    for name, value in facts.items():
        setattr(record, name, value)
    account(record, stream_of(*[WORD] * 99, usage_event(99), done=True), "chat", 4000, 1.0, 3.0, Somebody())
    assert paces(record) == []


def made(endpoint: str, answer: Response | None, most: Most, *, is_over: bool) -> Usage | None:
    record = record_of(endpoint, False)
    return estimated(record, answer, endpoint, most, 2.0, is_over=is_over, is_async=False)[0]


@pytest.mark.parametrize("status", [b"204 None", b"205 Reset", b"300 Choices", b"307 There", b"404 No"])
def test_what_is_no_answer_costs_nothing(status):
    assert told(status, USAGE)[1] == (None, None)
    assert made("chat", passed(b"", status=status), Most(10, 9000), is_over=True) is None


def sound(size: int, whole: int) -> Response:
    return passed(b"x" * size, b"Content-Type: audio/mpeg", whole=whole)


@pytest.mark.parametrize("is_over", [True, False])
def test_pictures_that_nobody_told_the_usage_of_cost_what_was_reserved(is_over):
    assert made("images", None, Most(10, 9000), is_over=is_over) == Usage(10, 0, 0, 9000, 0, True)


@pytest.mark.parametrize(
    ("answer", "is_over", "tokens"),
    [
        (sound(960_000, 960_000), True, 1250),  # a minute
        (sound(96_000, 960_000), False, 600),  # of 100 tokens of text
        (sound(960_000, 9_600_000), False, 1250),
        (None, False, 600),
        (sound(9_600_000, 9_600_000), True, 1800),  # no more than was reserved
    ],
)
def test_speech_costs_what_it_lasts(answer, is_over, tokens):
    expected = Usage(100, 0, 0, tokens, 0, True, 0, tokens)
    assert made("speech", answer, Most(100, 1800, speaks=True), is_over=is_over) == expected


@pytest.mark.parametrize(
    ("most", "usage"),
    [
        (Most(100, 9000, heard=30), Usage(100, 0, 0, int(USUAL_PACE), 0, True, 30, 0)),
        (Most(100, 9000, heard=30, writes_cache=True), Usage(100, 0, 70, int(USUAL_PACE), 0, True, 30, 0)),
        (Most(100, 9000, speaks=True), Usage(100, 0, 0, int(USUAL_PACE), 0, True, 0, int(USUAL_PACE))),
    ],
)
def test_what_has_a_price_of_its_own_is_estimated_at_that(most, usage):
    assert made("chat", None, most, is_over=False) == usage  # a second, at the usual pace
