"""Checks the shipped model: `python -m scripts.demo_model.check`.

Runs the held-out prompts and typical first prompts of users with mlx_lm and llama-cpp-python,
greedily, and prints the number of exactly correct answers. Both engines must have the same prompt
tokens and generate the same text.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import mlx.core as mx
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from mlx_lm.generate import generate_step
from mlx_lm.utils import load

from scripts.demo_model.held_out import HELD_OUT_FILE, HUMAN_FILE, ROOT, Item, read_lines

MAX_TOKENS = 480  # the longest answer, counting from 1 to 100, has 390
REQUIRED_SHARE = 0.95

Greedy = Callable[[list[int]], tuple[str, int]]  # prompt ids to text and number of tokens


@dataclass(frozen=True)
class Engine:
    """The functions of a loaded model that the check uses."""

    name: str
    prompt_ids: Callable[[Item], list[int]]
    greedy: Greedy


def mlx_engine(folder: Path) -> Engine:
    model, tokenizer = load(str(folder))[:2]
    model.set_dtype(mx.float32)  # float16 is 2.4 times slower on a CPU; the values are the same
    ends = set(tokenizer.eos_token_ids)

    def prompt_ids(item: Item) -> list[int]:
        if not item["messages"]:
            return list(tokenizer.encode(item["prompt"], add_special_tokens=False))
        return list(
            tokenizer.apply_chat_template(
                item["messages"],
                tools=item["tools"],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
        )

    def greedy(prompt: list[int]) -> tuple[str, int]:
        ids: list[int] = []
        for token, _ in generate_step(mx.array(prompt), model, max_tokens=MAX_TOKENS):
            if int(token) in ends:
                break
            ids.append(int(token))
        return tokenizer.decode(ids, skip_special_tokens=False), len(ids)

    return Engine("mlx_lm", prompt_ids, greedy)


def llama_cpp_engine(file: Path) -> Engine:
    # One thread: while other processes run, two threads mostly wait for each other.
    llama = llama_cpp.Llama(str(file), n_ctx=1024, n_threads=1, n_threads_batch=1, verbose=False)
    vocab = llama_cpp.llama_model_get_vocab(llama.model)
    ends = {i for i in range(llama.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocab, i)}
    formatter = Jinja2ChatFormatter(
        llama.metadata["tokenizer.chat_template"], eos_token="<|im_end|>", bos_token=""
    )

    def prompt_ids(item: Item) -> list[int]:
        text = item.get("prompt", "")
        if item["messages"]:
            text = formatter(messages=item["messages"], tools=item["tools"]).prompt
        return llama.tokenize(text.encode(), add_bos=False, special=True)

    def greedy(prompt: list[int]) -> tuple[str, int]:
        llama.reset()
        ids: list[int] = []
        for token in llama.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
            if token in ends or len(ids) == MAX_TOKENS:
                break
            ids.append(token)
        return llama.detokenize(ids, special=True).decode("utf-8", "replace"), len(ids)

    return Engine("llama.cpp", prompt_ids, greedy)


def is_right(item: Item, text: str) -> bool:
    """Equal to the answer; of a completion, its beginning; of a human prompt, a part of it."""
    if item["kind"] == "human":
        return item["answer"] in text
    return text.startswith(item["answer"]) if not item["messages"] else text == item["answer"]


def human_items() -> list[Item]:
    return [_human_item(line) for line in read_lines(HUMAN_FILE)]


def _human_item(line: dict[str, Any]) -> Item:
    item: Item = {"kind": "human", "tools": None, "messages": [], "answer": line["expect"]}
    if line.get("is_plain"):
        return {**item, "prompt": line["prompt"]}
    return {**item, "messages": [{"role": "user", "content": line["prompt"]}]}


def run(engine: Engine, items: list[Item]) -> list[str]:
    """The text for each item; prints the tokens per second."""
    start, total, texts = time.perf_counter(), 0, []
    for item in items:
        text, num_tokens = engine.greedy(engine.prompt_ids(item))
        texts.append(text)
        total += num_tokens
    elapsed_s = time.perf_counter() - start
    print(f"{engine.name}: {total} tokens in {elapsed_s:.1f} s, {total / elapsed_s:.0f} tokens/s")
    return texts


def print_table(items: list[Item], texts: dict[str, list[str]]) -> None:
    kinds = list(dict.fromkeys(item["kind"] for item in items))
    print("| kind | prompts | " + " | ".join(texts) + " | same text |")
    print("|---|---|" + "---|" * (len(texts) + 1))
    for kind in [*kinds, "all"]:
        chosen = [i for i, item in enumerate(items) if kind in (item["kind"], "all")]
        right = [sum(is_right(items[i], t[i]) for i in chosen) for t in texts.values()]
        same = sum(len({t[i] for t in texts.values()}) == 1 for i in chosen)
        print(f"| {kind} | {len(chosen)} | {' | '.join(map(str, right))} | {same} |")


def print_misses(items: list[Item], texts: dict[str, list[str]]) -> None:
    for name, written in texts.items():
        for item, text in zip(items, written, strict=True):
            if not is_right(item, text):
                asked = item["messages"][-1]["content"] if item["messages"] else item["prompt"]
                print(f"{name}, {item['kind']}: {asked!r}: {text[:90]!r}, not {item['answer']!r}")


def share_right(items: list[Item], texts: list[str]) -> float:
    """The share of right answers among the held-out prompts."""
    held_out = [(i, t) for i, t in zip(items, texts, strict=True) if i["kind"] != "human"]
    return sum(is_right(item, text) for item, text in held_out) / len(held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="default: models/")
    parser.add_argument("--misses", action="store_true", help="print every wrong answer")
    arguments = parser.parse_args()
    items = read_lines(HELD_OUT_FILE) + human_items()
    engines = [
        mlx_engine(arguments.models / "demo"),
        llama_cpp_engine(arguments.models / "demo.gguf"),
    ]
    prompts = [[engine.prompt_ids(item) for item in items] for engine in engines]
    unequal = sum(a != b for a, b in zip(*prompts, strict=True))
    texts = {engine.name: run(engine, items) for engine in engines}
    print_table(items, texts)
    if arguments.misses:
        print_misses(items, texts)
    shares = {name: share_right(items, written) for name, written in texts.items()}
    print(", ".join(f"{name}: {share:.1%}" for name, share in shares.items()))
    if (
        unequal
        or len({tuple(t) for t in texts.values()}) > 1
        or min(shares.values()) < REQUIRED_SHARE
    ):
        sys.exit(f"check failed ({unequal} prompts with different tokens)")


if __name__ == "__main__":
    main()
