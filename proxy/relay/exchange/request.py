"""A client's request: the head with its options, the body as it comes in, and where it may go.

What becomes of it is in :mod:`proxy.relay.exchange.exchange`.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy.access.admission import Most, admit, check_answers, dearest_nusd, limit_of, most_of, prompt_tokens
from proxy.access.grants import Grant
from proxy.access.permits import Permit
from proxy.access.tagging import Tagged
from proxy.endpoints import COMPACT_PATH, TAKES_TOKENS
from proxy.errors import BadRequest, ForeignOrigin, Unavailable, UnknownModel
from proxy.relay.exchange.request_body import RequestBody, add_parts, facts_of
from proxy.relay.upstream.known_head import KnownHead
from proxy.routing.candidates import Facts
from proxy.routing.fallbacks import named_fallbacks, own_fallbacks
from proxy.routing.pool import Pool
from proxy.routing.request_options import Options, caller_of, read_options
from proxy.routing.retry_budget import Share
from proxy.usage.media_tokens import UNSEEN_PICTURE_TOKENS
from proxy.wire.include_usage import USAGE_ASKED_AT
from proxy.wire.json_body import Keys
from proxy.wire.output_limits import COMPACT, NOTHING_SAID, OutputLimits, read_output_limits, written_limits
from proxy.wire.references import REFERRING, has_stored_prompt

if TYPE_CHECKING:
    from proxy.relay.exchange.context import Context


# The body of a request that is shorter comes with its head: there is nothing to be gained by refusing early.
_LOOK_BYTES: Final = 16 << 10
# A body that is smaller is not counted for what is held: max_connections bounds how many there can be.
_COUNT_BYTES: Final = 16 << 10
_NO_LIMIT: Final = float("inf")


class Request:
    """One request of a client, before and while it is served. All times are monotonic seconds."""

    # Slots, because under load a dictionary costs a tenth more CPU: more memory is touched.
    __slots__ = (
        "answer_limit", "asks", "begun_at", "body", "buffered_bytes", "can_retry", "client_limit_s",
        "context", "deadline_s", "endpoint", "fallbacks", "grant", "has_newer_limit", "head", "learn_bytes",
        "length", "listed", "most", "options", "path", "permit", "pool", "prompts", "ready_at",
        "refers", "repeats", "request_id", "routes", "sent_at", "settled_at", "streamed", "tagged",
    )  # fmt: skip

    options: Options  # set by begin()

    def __init__(
        self, context: Context, head: KnownHead, length: int | None, endpoint: str, path: bytes
    ) -> None:
        self.context = context
        self.routes = context.routes  # a reload may bring others meanwhile
        self.head = head
        self.length = length  # of the body; None: it is chunked, or there is none
        self.endpoint = endpoint
        self.path = path  # below the provider's base path
        self.request_id = context.next_request_id()
        self.begun_at = self.ready_at = monotonic()
        self.settled_at = 0.0  # when what the choice needed had come; more of the body may follow
        self.sent_at = 0.0  # when the first attempt was sent
        self.body = RequestBody(length)
        self.buffered_bytes = 0  # of the body, as far as it counts for max_buffered
        self.client_limit_s = _NO_LIMIT  # of X-Inferoute-Timeout
        self.deadline_s = _NO_LIMIT  # for all attempts together
        self.learn_bytes = 0  # size of the prompt's text, where the whole body was seen; else 0
        self.listed = 0  # commas in the body of an endpoint that takes prompts as lists of tokens
        self.prompts = 1  # of a list, as far as that is known
        self.streamed = False
        self.refers = False  # to something of unknown size, which its prompt has too
        self.can_retry = False  # an attempt may be followed by one at another member
        self.repeats = 0  # how often by one at the same
        self.pool: Pool | None = None
        self.fallbacks: list[Pool] = []
        self.grant: Grant | None = None  # what its key grants; None: it has none, and needs none
        self.tagged: Tagged | None = None  # None: it has no tags
        self.permit: Permit | None = None  # what it holds of its key's limits
        self.most: Most | None = None  # what is reserved there, once that is worked out
        self.asks: OutputLimits | None = None  # what it was let in for, where its key's limits go by that
        self.answer_limit = 0  # of each response's tokens, to be put into the body; 0: nothing is
        self.has_newer_limit = False  # the body has it in chat's newer word: it is for who doesn't know that

    def begin(self) -> None:
        """Check the head of the request.

        :raises GatewayError: it can't be served.
        """
        head = self.head
        context = self.context
        known = head.access
        if known is not None and known[0] is context.keys:  # the same head as before, by the same keys
            self.grant, self.tagged = known[1], known[2]
        else:
            self._look_up()
        grant = self.grant
        if grant is not None:
            if grant.may_end:
                grant.check(self.begun_at + context.unix_offset_s)
            if self.begun_at < grant.account.spent_until:
                grant.account.look(self.begun_at, self.begun_at + context.unix_offset_s)
        options = head.options
        if options is None:
            options = head.options = read_options(head)
        self.options = options
        if options.timeout_s is not None:
            self.client_limit_s = options.timeout_s
        length = self.length
        if length is None:
            if not head.chunked:
                text = "The request needs a Content-Length or a chunked body."
                raise BadRequest(text, status=411, close=True)
        else:
            self._check_size(length)
        if grant is not None and grant.account.is_limited and (length is None or length > _LOOK_BYTES):
            grant.account.look(self.begun_at, self.begun_at + self.context.unix_offset_s)

    def _look_up(self) -> None:
        """Find the grant and the tags of a head that was not held against these keys before.

        :raises GatewayError: it has no valid key and needs one; its tags can't be read.
        """
        head, context = self.head, self.context
        grant = self.grant = context.keys.grant_of(head.credentials)
        # Any page can have its reader's browser send a request here, and that it can't read the response
        # saves no tokens. A key, though, is given to those who may.
        if grant is None and head.origin and not context.lets_pages_call(head.origin):
            raise ForeignOrigin
        if context.tagging is not None:
            unix_s = self.begun_at + context.unix_offset_s
            self.tagged = context.tagging.tagged(head.inferoute, grant, unix_s)
        head.access = context.keys, grant, self.tagged

    @property
    def share(self) -> Share | None:
        """Its key's of the retry budget."""
        return None if self.grant is None else self.grant.account.share

    def unready_grant(self) -> Grant | None:
        """The key's grant, where its list of models is still to be held against the catalog."""
        grant = self.grant
        if grant is None or not grant.limits_models or grant.is_ready(self.routes.catalog):
            return None
        return grant

    def _check_size(self, size: int) -> None:
        if size > self.context.max_body_bytes:
            text = f"The body is larger than max_body ({self.context.max_body_bytes} bytes)."
            raise BadRequest(text, status=413, code="body_too_large", close=True)

    def scan(self, piece: bytes, done: bool) -> None:
        """Look at the next piece of the body; ``done``: it is the last.

        :raises GatewayError: the body can't be served.
        """
        body = self.body
        if body.size:
            self.ready_at = monotonic()
        body.scan(piece, done)
        if self.length is None:
            self._check_size(body.size)

    def hold(self, piece: bytes) -> None:
        """Keep a piece of the body until it is known where it goes.

        :raises Unavailable: all bodies together are more than may be held.
        """
        body, context = self.body, self.context
        body.hold(piece)
        if body.size > _COUNT_BYTES:
            context.buffered_bytes += body.size - self.buffered_bytes
            self.buffered_bytes = body.size
            if context.is_full():
                text = "Too many large request bodies at once; try again in a moment."
                raise Unavailable(text, code="overloaded", retry_after_s=1)

    def keep(self, piece: bytes) -> None:
        """Keep a piece of the body that is sent on, for another attempt, as long as there is room."""
        body, context = self.body, self.context
        body.keep(piece, context.replay_limit_bytes)
        if body.held is None:
            self.unhold()
        elif body.size > _COUNT_BYTES:
            context.buffered_bytes += body.size - self.buffered_bytes
            self.buffered_bytes = body.size
            if context.is_full():
                body.held = None
                self.unhold()

    def may_keep(self) -> bool:
        """Return whether what is held when an attempt begins is kept for another one: up to ``replay_limit``,
        and all that was held for the choice, while bodies that others need for theirs still find room."""
        context = self.context
        if self.body.size <= context.replay_limit_bytes:
            return True
        held = context.buffered_bytes + context.buffered_elsewhere
        return self.is_whole() and 2 * held <= context.max_buffered_bytes

    def is_whole(self) -> bool:
        """Return whether all of the body had to come before the choice, so that it is there."""
        return self.body.done and not self.is_settled()

    def unhold(self) -> None:
        """The body is on its way, or not needed any more."""
        if self.buffered_bytes:
            self.context.buffered_bytes -= self.buffered_bytes
            self.buffered_bytes = 0

    def is_settled(self) -> bool:
        """Nothing still to come of the body can change where it goes or what is sent."""
        members = (self.pool or self.resolve()).members
        if len(members) > 1 or (self.grant is not None and self.grant.reads_body):
            return False
        for fallback in self.fallbacks:
            members += fallback.members
        return not any(
            member.provider.case_insensitive_keys or member.provider.request_stream_usage
            for member in members
        )

    def let_in(self, pool: Pool, text: bytes, keys: Keys, now: float, *, is_clear: bool) -> None:
        """Hold the request against the limits of its key.

        :param text: what the body says at the ``keys``.
        :param is_clear: all programs understand its ``stream`` alike.
        :raises GatewayError: one is reached.
        """
        body = self.body
        if body.done:
            body.check_media()
            self.learn_bytes = body.text_bytes()
        grant = self.grant
        if grant is not None and grant.has_limits:
            if grant.reads_body:
                self._work_out(grant, pool, text, keys, is_clear=is_clear)
            self.permit = admit(grant, pool, self.fallbacks, self.most, now, now + self.context.unix_offset_s)

    def _work_out(self, grant: Grant, pool: Pool, text: bytes, keys: Keys, *, is_clear: bool) -> None:
        """Work out what the request may use, for a key whose limits go by that.

        :raises BadRequest: 422, more than its key allows a request; 400, it is not clear.
        """
        endpoint, body = self.endpoint, self.body
        if body.held is not None and endpoint in TAKES_TOKENS:
            self.listed = sum([piece.count(b",") for piece in body.held])
            self.prompts = body.prompts() if endpoint == "completions" else 1
        if not is_clear:
            said = "'stream' must be true or false, and stand in the body once, in plain spelling."
            raise BadRequest(said, code="invalid_stream", param="stream")
        if self.streamed and endpoint in USAGE_ASKED_AT and not body.is_clear_about_usage():
            said = (
                "'stream_options' must be an object, and stand in the body once, in plain spelling, with "
                "include_usage true or false; continuous_usage_stats only beside include_usage true."
            )
            raise BadRequest(said, code="invalid_stream_options", param="stream_options")
        found = written_limits(text, keys)
        limits_as = self._limits_as()
        wants = read_output_limits(text, keys, found, limits_as)
        check_answers(found, wants)
        prompts = self.prompts
        if grant.max_tokens is not None:
            limit = self.answer_limit = limit_of(grant, limits_as, found, wants, prompts)
            self.has_newer_limit = wants.in_newer_word
            if limit:
                wants = OutputLimits(limit, wants.answers, wants.is_async)
        self.asks = wants
        if grant.account.reserves:
            self.most = self._most_of(pool, wants)
            if endpoint in REFERRING:
                self._add_referred(self.most, pool, text, keys)

    def _add_referred(self, most: Most, pool: Pool, text: bytes, keys: Keys) -> None:
        """To a prompt, what its body refers to: any number that a model takes."""
        endpoint = self.endpoint
        pictures = self.body.referred(endpoint)
        if pictures >= 0 and not (endpoint == "responses" and has_stored_prompt(text, keys)):
            most.given += pictures * UNSEEN_PICTURE_TOKENS
            most.expected += pictures * UNSEEN_PICTURE_TOKENS
            if pictures:
                self.learn_bytes = 0
            return
        self.refers = True
        self.learn_bytes = 0  # what its prompt counts says nothing of its bytes
        most.given = max(most.given, pool.widest, *[fallback.widest for fallback in self.fallbacks])
        most.expected = most.given

    def _most_of(self, pool: Pool, wants: OutputLimits) -> Most:
        body = self.body
        text_bytes, media_tokens = body.text_bytes(), body.media_tokens(self.endpoint)
        expected = max(prompt_tokens(pool, self.streamed, text_bytes, media_tokens), self.listed)
        upper = prompt_tokens(pool, self.streamed, text_bytes, media_tokens, at_most=True)
        most = most_of(pool, self.fallbacks, wants, self.prompts, max(upper, expected))
        most.expected = int(expected) + 1
        add_parts(body, most, (pool, *self.fallbacks))
        return most

    def most_used(self) -> Most:
        """The most it may have used, also where nothing was reserved."""
        most, pool = self.most, self.pool
        if most is None:
            assert pool is not None
            most = self.most = self._most_of(pool, self.wants())
        return most

    def answers(self) -> int:
        """The number of answers it wants in all: as many to each of its prompts."""
        most = self.most
        return self.wants().answers * self.prompts if most is None else most.answers

    @property
    def is_text(self) -> bool:
        """Its prompt has nothing but the text of its body, as far as that is known."""
        return not self.refers and not self.body.media_tokens(self.endpoint)

    @property
    def key_id(self) -> str:
        """Its key's; empty without one."""
        return "" if self.grant is None else self.grant.id

    def may_cost_more(self, pool: Pool, now: float) -> bool:
        """Reserve room within the key's limits for another attempt beside one that is charged, or is about to
        be. Returns whether there is any.

        :param pool: of the attempt that is charged.
        """
        grant, permit, most = self.grant, self.permit, self.most
        if grant is None or permit is None or most is None:
            return True
        nusd = dearest_nusd(pool, self.fallbacks, most)
        unix_s = now + self.context.unix_offset_s
        return grant.account.extend(permit, now, unix_s, most.given + most.output, nusd)

    def wants(self) -> OutputLimits:
        """The amount of work that its body asks for: what it was admitted for, where its key's limits go by
        that."""
        if self.asks is not None:
            return self.asks
        noted, keys = self.body.noted, self.body.noted_keys
        if not keys:
            return NOTHING_SAID
        return read_output_limits(noted, keys, written_limits(noted, keys), self._limits_as())

    def _limits_as(self) -> str:
        """The endpoint by which it is known what limits its response."""
        return COMPACT if self.path == COMPACT_PATH else self.endpoint

    def resolve(self) -> Pool:
        """The pool the request names, and those it names as fallbacks.

        :raises GatewayError: there is no such name, or it can't be used here.
        """
        found = self.body.found
        pool = self.pool = self._find(None if found is None else found.name)
        self.can_retry = pool.can_fail_over
        self.repeats = self.context.retry_same
        self.deadline_s = pool.deadline_s
        options = self.options
        if options.fallbacks:
            self.fallbacks = named_fallbacks(options.fallbacks, pool, self._find)
            self.can_retry = True
        if pool.fallback_names:
            own = own_fallbacks(pool, options.strategy, self._find)
            self.fallbacks = [*self.fallbacks, *[each for each in own if each not in self.fallbacks]]
            self.can_retry = self.can_retry or bool(own)
        return pool

    def _find(self, name: str | None) -> Pool:
        """The pool of a name, as far as the key may use it.

        :raises GatewayError: as :meth:`resolve`.
        """
        catalog, strategy, grant = self.routes.catalog, self.options.strategy, self.grant
        try:
            if grant is None or not grant.limits_models:
                return catalog.resolve(name, self.endpoint, strategy)
            return grant.resolve(catalog, name, self.endpoint, strategy)
        except UnknownModel as error:
            # A hint may name models that are not the key's.
            hint = None if grant is not None and grant.limits_models else self.context.hint(error.name)
            raise UnknownModel(error.name, hint) from None

    def facts(self, pool: Pool, text: bytes, keys: Keys, now: float) -> Facts:
        """Collect what the choice among ``pool`` needs to know.

        :param text: what the body says at the ``keys``.
        """
        alias = pool.alias
        caller = b""
        if alias is not None and alias.sticky:
            caller = caller_of(self.head, alias.sticky, None if self.grant is None else self.grant.id)
        return facts_of(self.body, text, keys, pool, self.endpoint, self.streamed, now, caller)

    def facts_again(self, pool: Pool) -> Facts:
        """The same for a further attempt. The body is held as long as there may be one."""
        text, keys = self.body.excerpt()
        return self.facts(pool, text, keys, monotonic())
