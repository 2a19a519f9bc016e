"""Everything that can be done to one key or one tensor of a GGUF file to break whoever believes it."""

import struct
from collections.abc import Iterator
from dataclasses import replace

from tests.fuzz.gguf_layout import ARRAY, CODES, SIZES, STRING, UINT32, Entry, Layout, Tensor, array, elements, text

ARCHITECTURES = (
    "llama", "llama4", "falcon", "grok", "gpt2", "gptj", "gptneox", "mpt", "baichuan", "starcoder", "refact", "bert",
    "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "bloom", "stablelm", "qwen", "qwen2",
    "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3next", "phi2", "phi3", "phimoe", "plamo", "plamo2", "codeshell",
    "orion", "internlm2", "minicpm", "minicpm3", "gemma", "gemma2", "gemma3", "gemma3n", "gemma-embedding",
    "starcoder2", "mamba", "mamba2", "jamba", "falcon-h1", "xverse", "command-r", "cohere2", "dbrx", "olmo", "olmo2",
    "olmoe", "openelm", "arctic", "deepseek", "deepseek2", "chatglm", "glm4", "glm4moe", "bitnet", "t5", "t5encoder",
    "jais", "nemotron", "nemotron_h", "exaone", "exaone4", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7", "granite",
    "granitemoe", "granitehybrid", "chameleon", "wavtokenizer-dec", "plm", "bailingmoe", "dots1", "arcee",
    "ernie4_5", "hunyuan-moe", "smollm3", "gpt-oss", "lfm2", "dream", "llada", "seed_oss", "apertus", "clip", "whisper",
    "", "llama.", "\0", "%s%s%n", "../x", "l" * 70, "l" * 70_000,
)  # fmt: skip
PROJECTORS = (
    "mlp", "ldp", "ldpv2", "resampler", "adapter", "qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger", "gemma3",
    "gemma3nv", "idefics3", "pixtral", "ultravox", "internvl", "llama4", "qwen2a", "qwen2.5o", "glma", "voxtral",
    "lfm2", "kimivl", "lightonocr", "cogvlm", "janus_pro", "mlp_norm", "glm_edge", "", "none", "x" * 5000,
)  # fmt: skip
VOCABULARIES = ("llama", "gpt2", "bert", "t5", "rwkv", "plamo2", "none", "no_vocab", "replit", "gemma4", "", "x" * 500)
PRETOKENISERS = (
    "default", "llama-bpe", "deepseek-llm", "falcon", "mpt", "starcoder", "gpt-2", "qwen2", "chatglm-bpe", "viking",
    "tekken", "gpt-4o", "superbpe", "kimi-k2", "hunyuan-dense", "jina-v2-de", "grok-2", "nothing",
)  # fmt: skip
TEMPLATES = (
    "",
    "{{",
    "{% for x in y %}",
    "{{ 1/0 }}",
    "{{ raise_exception('x') }}",
    "{{ x" + "(" * 5000,
    "{{ a.b.c }}",
)


def layouts(layout: Layout) -> Iterator[tuple[str, Layout]]:
    for number, entry in enumerate(layout.entries):
        for what, entries in entry_changes(entry):
            yield f"{entry.key}: {what}", layout.with_entry(number, *entries)
        yield f"{entry.key}: missing, counted", replace(layout.with_entry(number), keys=len(layout.entries))
        yield (
            f"{entry.key}: twice, uncounted",
            replace(layout.with_entry(number, entry, entry), keys=len(layout.entries)),
        )
    for number, tensor in enumerate(layout.tensors):
        for what, tensors in tensor_changes(tensor, layout):
            yield f"{tensor.name}: {what}", layout.with_tensor(number, *tensors)
    yield from _extra_keys(layout)
    yield "tensors in another order", replace(layout, tensors=tuple(reversed(layout.tensors)))
    yield "no tensors", replace(layout, tensors=())
    for alignment in (8, 16, 64, 4096):
        told = Entry("general.alignment", UINT32, struct.pack("<I", alignment))
        yield f"alignment told as {alignment}", replace(layout, entries=(*layout.entries, told), alignment=alignment)
        yield f"alignment {alignment} untold", replace(layout, alignment=alignment)


def entry_changes(entry: Entry) -> Iterator[tuple[str, tuple[Entry, ...]]]:
    yield "missing", ()
    yield "twice", (entry, entry)
    for kind, size in SIZES.items():
        if kind != entry.kind:
            for number in (0, 1, 64):
                yield f"as kind {kind}, {number}", (replace(entry, kind=kind, raw=struct.pack(CODES[kind], number)),)
            yield f"as kind {kind}, all bits", (replace(entry, kind=kind, raw=b"\xff" * size),)
    for kind in (4, 5, 6, 7, 8):
        for count in (0, 1, 2, 3, 40, 600):
            values = [b"7"] * count if kind == STRING else [1] * count
            yield f"as {count} of kind {kind}", (replace(entry, kind=ARRAY, raw=array(kind, values)),)
    if entry.kind != STRING:
        yield "as a text", (replace(entry, kind=STRING, raw=text("64")),)
    yield "as nested arrays", (replace(entry, kind=ARRAY, raw=_nested(40)),)
    yield "under a long key", (replace(entry, key=entry.key + "x" * 60_000),)
    yield "under an empty key", (replace(entry, key=""),)
    if entry.kind in {4, 5, 10, 11}:
        for number in (5, 6, 12, 24, 48, 63, 66, 96, 100, 128, 256, 512, 1000, 8192, 100_000, 1 << 22, 1 << 26):
            yield f"is {number}", (replace(entry, raw=struct.pack(CODES[entry.kind], number)),)
    if entry.kind in {6, 12}:
        for real in (float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 1e-45, 1e38):
            yield f"is {real}", (replace(entry, raw=struct.pack(CODES[entry.kind], real)),)
    if entry.kind == STRING:
        for value in _texts_for(entry.key):
            yield f"is {value[:20]!r}", (replace(entry, raw=text(value)),)
    if entry.kind == ARRAY:
        for what, raw in _array_changes(entry):
            yield what, (replace(entry, raw=raw),)


def _texts_for(key: str) -> tuple[str, ...]:
    known = {
        "general.architecture": ARCHITECTURES,
        "tokenizer.ggml.model": VOCABULARIES,
        "tokenizer.ggml.pre": PRETOKENISERS,
        "tokenizer.chat_template": TEMPLATES,
        "clip.projector_type": PROJECTORS,
    }
    return known.get(key, ("", "x", "\0", "x" * 100_000, "ü" * 3, "{{", "%n%n%n"))


def _nested(depth: int) -> bytes:
    return struct.pack("<IQ", ARRAY, 1) * depth + array(UINT32, [1])


def _array_changes(entry: Entry) -> Iterator[tuple[str, bytes]]:
    kind, members = elements(entry)
    for count in {0, 1, 2, len(members) // 2, len(members) - 1}:
        yield f"only {count}", array(kind, members[:count])
    for more in (1, 2, 100, 5000):
        yield f"{more} more", array(kind, members + members[:1] * more)
    if kind == STRING:
        for word in (b"", b" ", b"  ", b"a", b"a b c", b"\xff\xfe", b"\xe2\x96\x81", b"x" * 100_000, b"<0x", b"<0xZZ>"):
            if len(word) < 10:
                yield f"all {word!r}", array(kind, [word] * len(members))
            for place in {0, 1, len(members) // 2, len(members) - 1}:
                changed = [*members[:place], word, *members[place + 1 :]]
                yield f"number {place} {word[:9]!r}", array(kind, changed)
        yield "two alike", array(kind, [members[-1], *members[1:]])
        yield "upside down", array(kind, members[::-1])
    else:
        for number in (0, 1, 2, 3, 4, 5, 6, 7, -1, 100, 1 << 30):
            with_float = float(number) if kind == 6 else number
            if kind == 4 and number < 0:
                continue
            yield f"all {number}", array(kind, [with_float] * len(members))
            yield f"last {number}", array(kind, [*members[:-1], with_float])
        yield "all bits", entry.raw[:12] + b"\xff" * (len(entry.raw) - 12)


def tensor_changes(tensor: Tensor, layout: Layout) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    yield "missing", ()
    yield "twice", (tensor, tensor)
    for kind in range(45):
        if kind != tensor.kind:
            yield f"kind {kind}", (replace(tensor, kind=kind),)
    for name in ("", "x", tensor.name + "x" * 40, "x" * 64, "x" * 5000, tensor.name.upper(), layout.tensors[0].name):
        yield f"called {name[:20]!r}", (replace(tensor, name=name),)
    for shape in _shapes(tensor.shape):
        yield f"shape {shape}", (replace(tensor, shape=shape),)
    end = len(layout.data)
    for offset in (
        0,
        32,
        64,
        tensor.offset + 32,
        max(0, tensor.offset - 32),
        tensor.offset + 1,
        end - 32,
        end,
        end + 32,
    ):
        if offset != tensor.offset:
            yield f"at {offset}", (replace(tensor, offset=offset),)


def sound_changes(tensor: Tensor) -> Iterator[Tensor]:
    """Other tensors of that name which a program may have written on purpose."""
    for kind in (0, 1, 2, 8, 12, 16, 24, 25, 26, 27, 28, 30, 34, 39):
        yield replace(tensor, kind=kind)
    shape = tensor.shape
    for changed in (
        (),
        (1,),
        shape[::-1],
        shape[:-1],
        (*shape, 2),
        (1, *shape),
        (shape[0] * 2, *shape[1:]),
        (*shape[:-1], shape[-1] * 2),
        (*shape[:-1], shape[-1] + 1),
        (*shape[:-1], shape[-1] // 2),
        (*shape[:-1], 1),
        (shape[0] // 2, *shape[1:]),
        tuple(side * 2 for side in shape),
    ):
        yield replace(tensor, shape=changed)
    yield replace(tensor, name="x")


def _shapes(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    yield ()
    yield shape[::-1]
    yield (*shape, 1)
    yield (*shape, *([1] * (4 - len(shape))))
    yield (*shape, 1, 1, 1, 1)
    yield (*shape, 2)
    yield (*shape, 0)
    yield shape[:-1]
    yield tuple(2 * side for side in shape)
    yield tuple(side // 2 for side in shape)
    for big in (1 << 16, 1 << 31, 1 << 32, 1 << 40, 1 << 62, 1 << 63):
        yield (big,) * len(shape)
        yield (shape[0], big, big, big)
        yield (big, 1)
    yield (1 << 32, 1 << 32, 1, 1)
    yield (1 << 31, 1 << 31, 2, 1)
    yield (3, (1 << 64) // 3)


def _extra_keys(layout: Layout) -> Iterator[tuple[str, Layout]]:
    """Keys that mean something to an engine and that the base does not have."""
    architecture = layout.entries[0].raw[8:].decode() if layout.entries[0].kind == STRING else "llama"
    numbers = (
        "vocab_size", "expert_count", "expert_used_count", "attention.key_length", "attention.value_length",
        "rope.dimension_count", "rope.scaling.original_context_length", "attention.sliding_window", "pooling_type",
        "ssm.conv_kernel", "ssm.state_size", "tensor_data_layout", "leading_dense_block_count", "logit_scale",
        "attention.group_norm_groups", "expert_feed_forward_length", "rope.freq_base", "rope.scaling.factor",
        "nextn_predict_layers", "classifier.output_labels", "dense_2_feat_out", "full_attention_interval",
    )  # fmt: skip
    keys = [f"{architecture}.{name}" for name in numbers]
    keys += [
        f"tokenizer.ggml.{name}_token_id"
        for name in ("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask", "fim_pre", "cls", "middle")
    ]
    keys += ["general.quantization_version", "general.alignment", "split.count", "split.no", "split.tensors.count"]
    keys += ["general.file_type", "general.type", "general.sampling.temp", "general.sampling.top_k", "adapter.type"]
    keys += [f"clip.vision.{name}" for name in ("spatial_merge_size", "projector.scale_factor", "image_min_pixels")]
    keys += [f"clip.{name}" for name in ("minicpmv_version", "vision.n_wa_pattern", "vision.window_size")]
    there = {entry.key for entry in layout.entries}
    for key in keys:
        if key in there:
            continue
        for kind, number in (
            (4, 0),
            (4, 1),
            (4, 3),
            (4, 100),
            (4, 0xFFFFFFFF),
            (5, -1),
            (6, 0.0),
            (6, -1.0),
            (2, 2),
            (10, 5),
        ):
            entry = Entry(key, kind, struct.pack(CODES[kind], number))
            yield f"{key} = {number} of kind {kind}", replace(layout, entries=(*layout.entries, entry))
        entry = Entry(key, STRING, text("linear"))
        yield f"{key} = text", replace(layout, entries=(*layout.entries, entry))
    for name in ("precompiled_charsmap", "eot_token_id", "add_space_prefix", "remove_extra_whitespaces"):
        for raw in (array(0, [0] * 40), array(1, [-1] * 40), array(0, [255] * 8), array(0, [])):
            entry = Entry(f"tokenizer.ggml.{name}", ARRAY, raw)
            yield f"{name} = list", replace(layout, entries=(*layout.entries, entry))
