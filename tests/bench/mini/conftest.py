"""A tokenizer of a few made up texts."""

from pathlib import Path

import pytest

from bench.mini.texts import train_tokenizer
from tests.toy_mini import TEXTS


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([text.get("text") or f"{text['question']} {text['answer']}" for text in TEXTS], 300, folder)
    return folder
