"""Trains tiny models side by side, each in a process of its own, and watches over them."""

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.data.tokenize import Encoder
from bench.data.types import Tokens
from bench.errors import LetheError
from bench.mini.pretrain import PEAK, Recipe
from bench.mini.texts import MAX_LENGTH, Text, encode, saving

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

trained_gib: list[float] = []
"""Peak memory of each training of a mini model that this process has started and that has ended."""

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
"""What a training process gets on top of this one's: one thread of the CPU, no GPU."""

Asked = tuple[str, str]
"""A model's name and the request that asks for it."""


@dataclass(frozen=True)
class Job:
    """One model to be trained."""

    texts: Sequence[Text]
    tokenizer: Path
    """The folder of it."""
    recipe: Recipe
    seed: int

    def line(self, folder: Path) -> str:
        """What bench.mini.pretrain reads, with the texts tokenised."""
        asked = {"recipe": asdict(self.recipe), "seed": self.seed, "folder": str(folder.absolute())}
        return json.dumps(asked | {"rows": [(row.input_ids, row.label_start) for row in self.rows()]}) + "\n"

    def rows(self) -> list[Tokens]:
        """The texts, tokenised."""
        encoder = Encoder(self._tokenizer(), template="plain", max_length=MAX_LENGTH)
        return [encode(encoder, text) for text in self.texts]

    def write_untrained(self, folder: Path) -> None:
        """A transformers folder with the model's first weights and the tokenizer."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM
        from transformers.utils import logging as logging_utils

        from bench.mini.llama import EPSILON, THETA

        logging_utils.disable_progress_bar()
        tokenizer, recipe = self._tokenizer(), self.recipe
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.width,
            intermediate_size=recipe.mlp_width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            max_position_embeddings=MAX_LENGTH,
            initializer_range=recipe.init_std,
            rms_norm_eps=EPSILON,
            rope_parameters={"rope_type": "default", "rope_theta": THETA},
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)  # torch.manual_seed would seed GPUs too
            model = LlamaForCausalLM(config).float().eval()
        with saving(folder):
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.tokenizer)


def _processors() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Trainers:
    """One thread per wanted model: it finds the model in the cache or watches over the process that trains it."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._places = threading.Semaphore(_processors() + 1)
        self._lock = threading.Lock()
        self._seeding = threading.Lock()
        """Held while first weights are drawn, from random numbers of the whole process."""
        self._stopped = False
        self._started = 0
        self._finished: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[str]] = []
        self._results: dict[Asked, Path] = {}
        self._errors: list[BaseException] = []

    def start(self, asked: Asked, find: Callable[[], Path]) -> None:
        def run() -> None:
            try:
                self._results[asked] = find()
            except BaseException as error:  # noqa: BLE001  raised again by wait(), in the caller's thread
                self._errors.append(error)
                self._stop()
            finally:
                self._finished.put(asked)

        self._started += 1
        threading.Thread(target=run, name=f"mini-{asked[0]}", daemon=True).start()

    def wait(self) -> dict[Asked, Path]:
        """All results; the first error, or an interrupt, ends every training."""
        left = self._started
        try:
            while left:  # a queue, since Thread.join cannot be repeated after an interrupt
                self._finished.get()
                left -= 1
        except BaseException:
            self._stop()
            with contextlib.suppress(queue.Empty):
                for _ in range(left):  # they remove what is half made; one that waits for another process is left
                    self._finished.get(timeout=10)
            raise
        if self._errors:
            raise self._errors[0]
        return self._results

    def train(self, name: str, job: Job, folder: Path) -> None:
        """Train a model in a process of its own; a transformers folder with the tokenizer in it."""
        with self._places:
            self._run_process(name, job, folder)

    def _run_process(self, name: str, job: Job, folder: Path) -> None:
        with self._lock:
            self._check_stopped(name)
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.mini.pretrain"],
                cwd=Path(__file__).resolve().parents[2],  # where `bench` is
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
            self._processes.append(process)
        last: deque[str] = deque(maxlen=20)
        with process:
            assert process.stdin is not None and process.stdout is not None
            asked = self._prepare(process, name, job, folder)
            try:
                process.stdin.write(asked)
                process.stdin.flush()  # left open: the process ends when this one does and the pipe closes
            except BrokenPipeError:  # it ended at once; its output says why
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()  # else the end of the block would try once more
            for line in process.stdout:
                if line.startswith(PEAK):
                    trained_gib.append(float(line.removeprefix(PEAK)))
                elif line.startswith("step "):
                    self._say(f"mini model {name} | {line.strip()}")
                elif line.strip():
                    last.append(line.rstrip())
        if process.returncode != 0:
            log.debug("the training of %s ended with code %d:\n%s", name, process.returncode, "\n".join(last))
            reason = last[-1] if last else f"exit code {process.returncode}; was memory short?"
            raise LetheError(
                f"the training of the mini model {name!r} failed: {reason};"
                " if the disk is full, free some space or name another folder with --cache-dir"
            )

    def _prepare(self, process: "subprocess.Popen[str]", name: str, job: Job, folder: Path) -> str:
        """The job as a line, made while the process loads torch; where that fails the process ends."""
        try:
            with self._seeding:
                self._check_stopped(name)
                job.write_untrained(folder)
            return job.line(folder)
        except BaseException:
            process.kill()
            raise

    def _check_stopped(self, name: str) -> None:
        if self._stopped:
            raise LetheError(f"the training of the mini model {name!r} was stopped")

    def _say(self, line: str) -> None:
        if self._progress is not None:
            with self._lock:
                self._progress(line)

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.kill()
