# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.13.0", "tokenizers==0.23.3", "gguf==0.19.0", "numpy==2.4.6", "pyyaml==6.0.3"]
# ///
"""Trains the demo model from nothing, writes stellwerk-demo.gguf and examines it.  Runs by hand; see README.md."""

import argparse
import math
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import gguf_file
import torch
from conversations import Conversations, Turn, first_choice
from network import Network, Shape
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional

SHIPPED = Path(__file__).parents[2] / "src" / "stellwerk" / "engines" / "demo" / "stellwerk-demo.gguf"
UNLEARNED = -100
LONGEST = 900


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what comes out."""

    seed: int
    steps: int
    tokens_per_step: int
    rate: float
    vocabulary: int
    threads: int


@dataclass
class Lesson:
    """Token ids of one conversation, and which of them are to be learned."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, ids: list[int], *, learn: bool = False) -> None:
        self.ids += ids
        self.labels += ids if learn else [UNLEARNED] * len(ids)


def make_tokenizer(corpus: list[str], size: int) -> Tokenizer:
    """A byte-level BPE, cut the way llama.cpp's "gpt-2" pre-tokenizer cuts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, special=True) for token in gguf_file.SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


class Chat:
    """Writes conversations in ChatML token ids, exactly as the chat template in the GGUF does."""

    def __init__(self, tokenizer: Tokenizer, dice: random.Random) -> None:
        self.dice = dice
        self.exact = tokenizer
        # The same merges, some of them skipped by chance: typing errors then look less strange to the model.
        self.loose = Tokenizer.from_str(tokenizer.to_str())
        self.loose.model.dropout = 0.1
        _, _, self.begin, self.end = (tokenizer.token_to_id(token) for token in gguf_file.SPECIALS)
        self.newline = self.encode("\n")
        self.heads = {role: [self.begin, *self.encode(f"{role}\n")] for role in ("system", "user", "assistant")}

    def encode(self, text: str) -> list[int]:
        return self.exact.encode(text, add_special_tokens=False).ids

    def encode_loosely(self, text: str) -> list[int]:
        if self.dice.random() < 0.5:
            return self.encode(text)
        return self.loose.encode(text, add_special_tokens=False).ids

    def lesson(self, system: str | None, turns: list[Turn], *, shorten: float = 0.0) -> Lesson:
        """One conversation to learn from.  `shorten` is the chance to cut the last answer after its first words: they
        decide which answer it becomes, and the time saved goes into more questions."""
        lesson = Lesson()
        if system is not None:
            lesson.add([*self.heads["system"], *self.encode_loosely(system), self.end, *self.newline])
        for number, turn in enumerate(turns, 1):
            question = [*self.heads["user"], *self.encode_loosely(turn.question), self.end, *self.newline]
            lesson.add([*question, *self.heads["assistant"]])
            answer = [*self.encode(turn.answer), self.end]
            if number == len(turns) and self.dice.random() < shorten:
                lesson.add(answer[:12], learn=True)
                break
            lesson.add(answer, learn=True)
            lesson.add(self.newline)
        return Lesson(lesson.ids[:LONGEST], lesson.labels[:LONGEST])

    def prompt(self, question: str) -> list[int]:
        return [*self.heads["user"], *self.encode(question), self.end, *self.newline, *self.heads["assistant"]]


class Batches:
    """Lessons of like length packed together, so that little is padding."""

    def __init__(self, conversations: Conversations, chat: Chat, tokens: int) -> None:
        self.conversations, self.chat, self.tokens = conversations, chat, tokens
        self.packed: list[list[Lesson]] = []

    def next(self, *, bare: bool, shorten: float) -> tuple[Tensor, Tensor]:
        """The next batch; what is asked for here is drawn when the last packing is used up."""
        if not self.packed:
            self.pack(bare, shorten)
        lessons = self.packed.pop()
        length = max(len(lesson.ids) for lesson in lessons)
        ids = torch.zeros((len(lessons), length), dtype=torch.long)
        labels = torch.full((len(lessons), length), UNLEARNED)
        for row, lesson in enumerate(lessons):
            ids[row, : len(lesson.ids)] = torch.tensor(lesson.ids)
            labels[row, : len(lesson.labels)] = torch.tensor(lesson.labels)
        return ids, labels

    def pack(self, bare: bool, shorten: float) -> None:
        conversations = [self.conversations.conversation(bare=bare) for _ in range(800)]
        drawn = [self.chat.lesson(system, turns, shorten=shorten) for system, turns in conversations]
        drawn.sort(key=lambda lesson: len(lesson.ids))
        batch: list[Lesson] = []
        for lesson in drawn:
            if batch and (len(batch) + 1) * len(lesson.ids) > self.tokens:
                self.packed.append(batch)
                batch = []
            batch.append(lesson)
        self.packed.append(batch)
        self.conversations.dice.shuffle(self.packed)


def learning_rate(step: int, recipe: Recipe) -> float:
    """A short warm-up, then half a cosine down to almost nothing."""
    warmth = min(1.0, (step + 1) / 100)
    return recipe.rate * warmth * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))


def make_optimizers(network: Network, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, which needs two thirds of the steps of AdamW here; AdamW for the rest."""
    matrices = [weight for name, weight in network.named_parameters() if weight.dim() > 1 and name.startswith("blocks")]
    others = [
        weight for name, weight in network.named_parameters() if weight.dim() < 2 or not name.startswith("blocks")
    ]
    return [
        torch.optim.Muon(matrices, lr=recipe.rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def loss_of(network: Network, ids: Tensor, labels: Tensor) -> Tensor:
    """Only answers are learned, so only they are scored: that saves a third of the time."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = network(ids[:, :-1])
        learned = labels[:, 1:] != UNLEARNED
        scores = network.logits(hidden[learned])
    # Not the mean over what is learned: a batch of two long conversations would count as much as one of eighty short.
    return functional.cross_entropy(scores.float(), labels[:, 1:][learned], reduction="sum") / (0.4 * ids.numel())


def train(network: Network, batches: Batches, recipe: Recipe) -> None:
    optimizers = make_optimizers(network, recipe)
    began, seen, smooth = time.monotonic(), 0, 0.0
    for step in range(recipe.steps):
        # Bare questions first, they cost the least; histories and system prompts once the questions are understood.
        # Answers are learned whole at the very start; once they sit, most of them can be cut short.
        ids, labels = batches.next(
            bare=step < 0.65 * recipe.steps,
            shorten=0.0 if step < 0.06 * recipe.steps else 0.85,
        )
        rate = learning_rate(step, recipe)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        loss = loss_of(network, ids, labels)
        network.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        seen += ids.numel()
        smooth = loss.item() if step == 0 else 0.97 * smooth + 0.03 * loss.item()
        if step % 100 == 0 or step == recipe.steps - 1:
            spent = time.monotonic() - began
            print(f"step {step:5}  loss {smooth:.4f}  {spent:5.0f} s  {seen / spent:6.0f} tokens/s", flush=True)


@torch.no_grad()
def gives(network: Network, chat: Chat, turn: Turn) -> bool:
    """Whether greedy decoding would give exactly this answer: each token has to win at its place."""
    prompt, answer = chat.prompt(turn.question), [*chat.encode(turn.answer), chat.end]
    hidden = network(torch.tensor([prompt + answer[:-1]]))[0, len(prompt) - 1 :]
    return network.logits(hidden).argmax(-1).tolist() == answer


def examine(network: Network, chat: Chat, conversations: Conversations) -> None:
    """Prints how many answers are right, word for word."""
    network.eval()
    trained, held_out = [], []
    for intent in conversations.intents:
        trained += [Turn(question=first_choice(line), answer=intent.answer) for line in intent.ask]
        held_out += [Turn(question=line, answer=intent.answer) for line in intent.held_out]
    refused = [conversations.strange_turn() for _ in range(300)]
    for title, turns in (("training questions", trained), ("held-out questions", held_out), ("refusals", refused)):
        wrong = [turn.question for turn in turns if not gives(network, chat, turn)]
        print(f"{title}: {len(turns) - len(wrong)} of {len(turns)} exact")
        print("".join(f"  not: {question}\n" for question in wrong[:40]), end="")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="the GGUF file to write")
    parser.add_argument("--steps", type=int, default=3200, help="training steps")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens per step")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--vocabulary", type=int, default=2048, help="tokens in the vocabulary")
    parser.add_argument("--seed", type=int, default=11, help="start of all chance")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    return parser.parse_args()


def main() -> None:
    """Tokenizer, training, examination, file."""
    arguments = parse_arguments()
    recipe = Recipe(
        seed=arguments.seed,
        steps=arguments.steps,
        tokens_per_step=arguments.tokens,
        rate=arguments.rate,
        vocabulary=arguments.vocabulary,
        threads=arguments.threads,
    )
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    conversations = Conversations(recipe.seed)
    tokenizer = make_tokenizer(conversations.corpus(), recipe.vocabulary)
    network = Network(Shape(vocabulary=tokenizer.get_vocab_size()))
    chat = Chat(tokenizer, conversations.dice)
    print(f"{network.size()} parameters, {len(conversations.intents)} intents, {recipe}", flush=True)
    began = time.monotonic()
    train(network, Batches(conversations, chat, recipe.tokens_per_step), recipe)
    print(f"trained in {time.monotonic() - began:.0f} s")
    gguf_file.write(arguments.out, network, tokenizer)
    print(f"wrote {arguments.out.name}, {arguments.out.stat().st_size} bytes")
    examine(network, chat, conversations)


if __name__ == "__main__":
    main()
