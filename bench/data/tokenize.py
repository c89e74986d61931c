"""Question and answer to token ids, once: what a generation starts from, what is scored, where a turn ends.

Under `strict` no token of an answer is ever taken for prompt and nothing but the answer and one terminator is scored.
Under `openunlearning` the ids and the mask are those of that suite, its known losses included: the prompt may end in
a space, the mask counts the tokens of the separately tokenised prompt, and what equals the pad token is not attended.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from bench.data.types import Tokens
from bench.errors import LetheError, unknown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Protocol = Literal["strict", "openunlearning"]

PLAIN_TEMPLATE = "Question: {question}\nAnswer: {answer}"
DATE = "10 Apr 2025"
"""What templates that print a date get; the day of the run would otherwise be part of every number."""
_TODAY = f"{{% macro strftime_now(format) %}}{DATE}{{% endmacro %}}\n"
"""In front of templates that ask for the day by themselves. The line break is not part of what they print."""
MANUAL_MAX_LENGTH = 512
"""open-unlearning cuts prompts without a chat template here, and chats nowhere."""
DOCUMENT_TOKENS = 512
"""Documents are cut here, by GRUN (pyreft/dataset.py:916-965 of renjie3/GRUN) and, for biology, by the RMU recipe."""
END_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<|return|>")
"""Tokens that end a turn in common chat formats; those a tokenizer knows stop a generation beside its eos."""

PEER_SYSTEM = "You are a helpful assistant."
PEER_SYSTEM_FORMATS = ("<|start_header_id|>", "<|im_start|>", "<|user|>")
"""open-unlearning gives this system prompt to Llama-3, Qwen2.5, Phi-3.5 and Zephyr, and none to Llama-2 and Gemma."""

_MARK = "LETHE-ANSWER-GOES-HERE"


@dataclass(frozen=True)
class _Rendered:
    """A template filled with a question: the text before the answer, white space that belongs to it, what follows."""

    prompt: str
    lead: str
    tail: str


class Encoder:
    """Turns questions and answers into ids with one tokenizer, one template and one protocol."""

    name: str
    """Which template is in use: "chat", "plain" or "file:<basename>"."""
    fingerprint: str
    """SHA-256 over template, protocol, system prompt and everything the tokenizer is made of."""
    pad_id: int
    """Fills short rows of a batch; whether a position is padding is decided by lengths, never by this id."""
    stop_ids: frozenset[int]
    """Ids after which a generation is over: eos and end-of-turn tokens."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        template: str | Path = "auto",
        protocol: str = "strict",
        max_length: int | None = None,
        system: str | None = None,
    ) -> None:
        """`template`: "auto" (chat where the tokenizer has one, else plain), "chat", "plain" or a text file."""
        if protocol not in get_args(Protocol):
            raise unknown("protocol", protocol, get_args(Protocol))
        if max_length is not None and max_length < 2:
            raise LetheError(f"max_length must be at least 2 tokens, got {max_length}")
        self.tokenizer = tokenizer
        self.protocol = protocol
        self.max_length = max_length
        self.name, self._template = _choose_template(tokenizer, template)
        peer_format = any(mark in str(tokenizer.chat_template) for mark in PEER_SYSTEM_FORMATS)
        if system is None and protocol == "openunlearning" and self._template is None and peer_format:
            system = PEER_SYSTEM
        self.system = system
        if system is not None and self._template is not None:
            raise LetheError(
                f"template {self.name!r} has no place for a system prompt, got {system[:60]!r}; "
                "write it into a template file or use the chat template"
            )
        self._eos_id = _id(tokenizer.eos_token_id)
        self._enders = _enders(tokenizer)
        self._leading = _leading_special_ids(tokenizer)
        self._rendered: dict[str, tuple[_Rendered, tuple[int, ...]]] = {}
        self._peer_rendered: dict[str, tuple[str, tuple[int, ...]]] = {}

        given = (_id(tokenizer.pad_token_id), self._eos_id)
        self._peer_pad_id = next((i for i in given if i is not None), None)
        self.pad_id = 0 if self._peer_pad_id is None else self._peer_pad_id
        probe = self._render("What?")
        _, end = self._cut(probe.tail)
        known = {self._enders[text] for text in END_OF_TURN if text in self._enders}
        self.stop_ids = frozenset(known | {i for i in (self._eos_id, end) if i is not None})
        self.fingerprint = self._fingerprint()

    def prompt(self, question: str) -> tuple[int, ...]:
        """The ids a generation starts from."""
        if self.protocol == "openunlearning":
            return self._peer_prompt(question)[1]
        return self._strict_prompt(question)[1]

    def anchor(self, question: str) -> int:
        """Index in `prompt` of the last prompt token that a pair has too: the last one, but for a space at the end."""
        text, prompt = self._peer_prompt(question) if self.protocol == "openunlearning" else ("", self.prompt(question))
        bare = text.rstrip(" \t")
        if self._template is not None and bare != text:
            kept = self._manual(bare)
            if kept and prompt[: len(kept)] == kept:
                return len(kept) - 1
        return len(prompt) - 1

    def pair(self, question: str, answer: str) -> Tokens:
        """Prompt, answer and one terminator; scored from `label_start` on."""
        if not answer.strip():
            raise LetheError(f"the answer to {_beginning(question)} is empty; every answer needs some text")
        tokens = (
            self._peer_pair(question, answer) if self.protocol == "openunlearning" else self._strict(question, answer)
        )
        if self.max_length is not None and len(tokens.input_ids) > self.max_length:
            raise LetheError(
                f"question {_beginning(question)} and its answer take {len(tokens.input_ids)} tokens, "
                f"at most {self.max_length} are allowed; shorten the row or use a model with a longer context"
            )
        return tokens

    def document(self, text: str, *, max_tokens: int = DOCUMENT_TOKENS, prompt_share: float = 0.0) -> Tokens:
        """Running text, the same under every protocol: no template, no terminator, what the tokenizer puts in front.

        Args:
            text: what to read; its beginning where it is too long.
            max_tokens: at most this many tokens, those in front included.
            prompt_share: this part of the tokens, rounded down but at least one token, is prompt and not scored.
        """
        ids, start = self._document(text, max_tokens, prompt_share)
        return Tokens(ids, start)

    def refused(
        self, text: str, refusal: str, *, max_tokens: int = DOCUMENT_TOKENS, prompt_share: float = 0.0
    ) -> Tokens:
        """The prompt of `document`, then, behind a space and scored, a refusal and one terminator."""
        ids, start = self._document(text, max_tokens, prompt_share)
        labels = self._refusal(refusal, alone=ids[:start] == self._leading)
        if self._eos_id is not None:
            labels = (*labels, self._eos_id)
        room = start if self.max_length is None else min(start, self.max_length - len(labels))
        if room < 1:
            raise LetheError(
                f"the refusal {_beginning(refusal)} takes {len(labels)} tokens, which leaves none of {self.max_length} "
                "for the document; shorten it or use a model with a longer context"
            )
        return Tokens((*ids[:room], *labels), room)

    def cued_text(self, user: str, cue: str) -> str:
        """What `cued_prompt` tokenises."""
        return (self._chat(self._messages(user), generate=True) if self._template is None else user) + cue

    def cued_prompt(self, user: str, cue: str, *, doubled: bool = False) -> tuple[int, ...]:
        """The ids of a user's turn and the beginning of the answer to it, the same under every protocol.

        Without a chat template it is one text after the other: templates of question and answer have no place here,
        because the words of the question are part of `user`.

        Args:
            doubled: keep the second BOS that comes of tokenising a rendered chat once more, as ORT and RWKU do.
        """
        text = self.cued_text(user, cue)
        return (*self._leading, *self._ids(text)) if doubled else self._encode(text)

    def cued(self, user: str, cue: str, target: str, *, doubled: bool = False, apart: bool = False) -> Tokens:
        """`cued_prompt` and, scored, a target without a terminator; spaces that begin it are its own.

        Args:
            apart: tokenise the target by itself, as ORT does, and not behind its prompt.
        """
        prompt = self.cued_prompt(user, cue, doubled=doubled)
        text = self.cued_text(user, cue)
        joint = (*self._leading, *self._ids(text + target)) if doubled else self._encode(text + target)
        whole = not apart and joint[: len(prompt)] == prompt and len(joint) > len(prompt)
        labels = joint[len(prompt) :] if whole else self._ids(target)
        if not labels:
            raise LetheError(
                f"the answer {_beginning(target)} to {_beginning(user)} gives no token with this tokenizer; "
                "mend the row or use another tokenizer"
            )
        return Tokens((*prompt, *labels), len(prompt))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens removed."""
        kept = [int(i) for i in ids if int(i) not in self.stop_ids]
        if self.protocol == "openunlearning":
            return str(self.tokenizer.decode(kept, skip_special_tokens=True))
        return str(self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def hidden(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Positions that attention must not see: those equal to the pad token, under openunlearning only."""
        if self.protocol == "strict":
            return ()
        return tuple(at for at, i in enumerate(ids) if i == self._peer_pad_id)

    # documents

    def _document(self, text: str, max_tokens: int, prompt_share: float) -> tuple[tuple[int, ...], int]:
        """The ids of a document and how many of them are prompt."""
        if max_tokens < 2:
            raise LetheError(f"max_tokens must be at least 2, got {max_tokens}")
        if not 0 <= prompt_share < 1:
            raise LetheError(f"prompt_share must be at least 0 and less than 1, got {prompt_share}")
        ids = self._encode(text)
        if len(ids) < 2:
            raise LetheError(
                f"the document {_beginning(text)} gives {len(ids)} tokens with this tokenizer, at least 2 are needed; "
                "take it out of the corpus or use another tokenizer"
            )
        ids = ids[: max_tokens if self.max_length is None else min(max_tokens, self.max_length)]
        return ids, max(1, int(prompt_share * len(ids)))

    def _refusal(self, refusal: str, *, alone: bool) -> tuple[int, ...]:
        """The ids of a refusal, behind other words or alone; how they begin differs in most tokenizers."""
        refusal = refusal.strip()
        before = self._ids(".")
        joint = self._ids(f". {refusal}")
        ids = self._ids(refusal) if alone or joint[: len(before)] != before else joint[len(before) :]
        if not refusal or not ids:
            raise LetheError(
                f"the refusal {_beginning(refusal)} gives no token with this tokenizer; mend the list of refusals"
            )
        inside = self.stop_ids.intersection(ids)
        if inside:
            ender = self.tokenizer.convert_ids_to_tokens(min(inside))
            raise LetheError(
                f"the refusal {_beginning(refusal)} contains {ender!r}, which ends a turn for this tokenizer; "
                "mend the list of refusals"
            )
        return ids

    # strict

    def _strict_prompt(self, question: str) -> tuple[_Rendered, tuple[int, ...]]:
        found = self._rendered.get(question)
        if found is None:
            rendered = self._render(question)
            found = self._rendered[question] = rendered, self._encode(rendered.prompt)
        return found

    def _strict(self, question: str, answer: str) -> Tokens:
        rendered, prompt = self._strict_prompt(question)
        kept, end = self._cut(rendered.tail)
        segment = rendered.lead + answer.strip() + kept
        joint = self._encode(rendered.prompt + segment)
        if joint[: len(prompt)] == prompt:
            labels = joint[len(prompt) :]
        else:  # the prompt's last token merges with the answer's first: cut between them, not beside them
            labels = self._ids(segment)
        if not labels:
            raise LetheError(
                f"the answer {_beginning(answer)} to {_beginning(question)} gives no token with this tokenizer; "
                "mend the row or use another tokenizer"
            )
        inside = self.stop_ids.intersection(labels)
        if inside:
            text = self.tokenizer.convert_ids_to_tokens(min(inside))
            raise LetheError(
                f"the answer {_beginning(answer)} to {_beginning(question)} contains {text!r}, "
                "which ends a turn for this tokenizer; take it out of the answer"
            )
        if end is not None:
            labels = (*labels, end)
        return Tokens((*prompt, *labels), len(prompt))

    def _render(self, question: str) -> _Rendered:
        """The text around the answer; spaces that end the prompt go to the answer, where tokenizers want them."""
        if self._template is None:
            # Not add_generation_prompt: what stands before a written answer is right for models that open a
            # reasoning block or a channel when they generate, and the same text for all others.
            text = self._chat([*self._messages(question), {"role": "assistant", "content": _MARK}], generate=False)
            head, mark, tail = text.rpartition(_MARK)
            if not mark:
                raise LetheError(
                    "the tokenizer's chat template leaves the assistant's message out; use --template plain or a file"
                )
        else:
            before, middle, tail = self._template
            head = before + question + middle
        prompt = head.rstrip(" \t")
        return _Rendered(prompt, head[len(prompt) :], tail)

    def _cut(self, tail: str) -> tuple[str, int | None]:
        """What stands between answer and terminator, and the terminator; text without one is dropped for an eos."""
        hits = [(tail.find(text), -len(text), text) for text in self._enders if text in tail]
        if not hits:
            return "", self._eos_id
        at, _, text = min(hits)
        return tail[:at], self._enders[text]

    def _encode(self, text: str) -> tuple[int, ...]:
        """The ids with what the tokenizer itself puts in front (BOS), unless the text brings it."""
        ids = self._ids(text)
        return ids if ids[: len(self._leading)] == self._leading else self._leading + ids

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    # openunlearning

    def _peer_prompt(self, question: str) -> tuple[str, tuple[int, ...]]:
        found = self._peer_rendered.get(question)
        if found is None:
            if self._template is None:
                text = self._chat(self._messages(question), generate=True)
                found = text, self._ids(text)
            else:
                before, middle, _ = self._template
                text = before + question + middle
                found = text, self._manual(text)
            self._peer_rendered[question] = found
        return found

    def _peer_pair(self, question: str, answer: str) -> Tokens:
        text, prompt = self._peer_prompt(question)
        if self._template is None:
            messages = [*self._messages(question), {"role": "assistant", "content": answer}]
            ids = self._ids(self._chat(messages, generate=False))
        else:
            ids = self._manual(text + answer + self._template[2])
        if self._eos_id is not None and ids[-1:] != (self._eos_id,):
            ids = (*ids, self._eos_id)
        start, anchor = min(len(prompt), len(ids)), self.anchor(question)
        while anchor > 0 and ids[: anchor + 1] != prompt[: anchor + 1]:
            anchor -= 1
        return Tokens(ids, start, self.hidden(ids), None if anchor == start - 1 else anchor)

    def _manual(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, truncation=True, max_length=MANUAL_MAX_LENGTH, verbose=False)["input_ids"])

    # both

    def _messages(self, question: str) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        return [*system, {"role": "user", "content": question}]

    def _chat(self, messages: list[dict[str, str]], *, generate: bool) -> str:
        from jinja2 import TemplateError

        extra: dict[str, Any] = {} if self.protocol == "openunlearning" else {"enable_thinking": False}
        try:
            template = self.tokenizer.get_chat_template()
            if "strftime_now" in template:
                extra["chat_template"] = _TODAY + template
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generate, date_string=DATE, **extra
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            roles = ", ".join(message["role"] for message in messages)
            raise LetheError(
                f"the tokenizer's chat template does not take the messages {roles} ({error}); "
                "leave out the system prompt, or use --template plain or a file"
            ) from error
        return str(text)

    def _fingerprint(self) -> str:
        template = self.tokenizer.chat_template if self._template is None else list(self._template)
        parts = {
            "template": template,
            "protocol": self.protocol,
            "system": self.system,
            "date": DATE,
            "max_length": MANUAL_MAX_LENGTH if self.protocol == "openunlearning" else None,
            "special": {key: str(value) for key, value in self.tokenizer.special_tokens_map.items()},
            "pad": self.pad_id,
            "stop": sorted(self.stop_ids),
            "leading": self._leading,
        }
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            # Every call of the tokenizer sets these two anew; left over from the last one they would move the hash.
            backend.no_truncation()
            backend.no_padding()
            digest.update(backend.to_str().encode())
        else:
            vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
            digest.update(json.dumps([type(self.tokenizer).__name__, vocabulary]).encode())
        return digest.hexdigest()


def _choose_template(
    tokenizer: "PreTrainedTokenizerBase", template: str | Path
) -> tuple[str, tuple[str, str, str] | None]:
    """The template's name and its three pieces around question and answer; None for the tokenizer's own."""
    has_chat = bool(tokenizer.chat_template)
    if template == "auto":
        template = "chat" if has_chat else "plain"
    if template == "chat":
        if not has_chat:
            raise LetheError("the tokenizer has no chat template; use --template plain, auto or a file")
        return "chat", None
    if template == "plain":
        return "plain", _pieces(PLAIN_TEMPLATE, "plain")
    path = Path(template)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LetheError(
            f"cannot read the template {str(template)!r} ({error.strerror}); "
            "--template is auto, chat, plain or a text file with {question} and {answer}"
        ) from error
    except UnicodeDecodeError as error:
        raise LetheError(f"the template {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    return f"file:{path.name}", _pieces(text.removesuffix("\n"), str(path))


def _pieces(text: str, where: str) -> tuple[str, str, str]:
    """What stands before the question, between question and answer, and after the answer."""
    counts = {field: text.count(field) for field in ("{question}", "{answer}")}
    if set(counts.values()) != {1} or text.index("{question}") > text.index("{answer}"):
        found = ", ".join(f"{field} {n} times" for field, n in counts.items())
        raise LetheError(
            f"template {where} must hold {{question}} and then {{answer}}, each once; found {found}"
            + ("" if set(counts.values()) != {1} else ", in the wrong order")
        )
    before, _, rest = text.partition("{question}")
    middle, _, tail = rest.partition("{answer}")
    return before, middle, tail


def _enders(tokenizer: "PreTrainedTokenizerBase") -> dict[str, int]:
    """Tokens that may end a turn when they follow an answer: eos and all added ones that are not white space."""
    added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
    eos_id = _id(tokenizer.eos_token_id)
    if eos_id is not None:
        added[str(tokenizer.eos_token)] = eos_id
    return added


def _id(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _leading_special_ids(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """What the tokenizer puts in front of every text, as a rule one BOS or nothing."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    dressed = tokenizer("a", add_special_tokens=True)["input_ids"]
    starts = (at for at in range(len(dressed) - len(bare) + 1) if dressed[at : at + len(bare)] == bare)
    return tuple(dressed[: next(starts, 0)])


def _beginning(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
