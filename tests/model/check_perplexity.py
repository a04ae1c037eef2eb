#!/usr/bin/python3
"""`peridot perplexity` against the same figures made here in float64: PROGRAM [DRIVER].

What is scored comes from the definition of the windows and from `peridot tokenize`, the logits from
`peridot logits`; the base's file is read here by its description in host/cli/logit_file.h. The models are the
demo model and one that differs from it by noise on every weight. Ends with a line "N passed, N failed".
"""
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
from checks import check, finish
from on_terminal import on_terminal

DEMO = os.path.join(HERE, "..", "..", "host", "demo", "model")
PROMPTS = os.path.join(HERE, "..", "data", "demo_heldout.jsonl")
NOTICE = re.compile(r"peridot: running on .*software.*\n")
BOS, VOCABULARY = 2, 1024
SAME = 1e-6  # relative: prompts in other pieces give logits that differ in the last digits of a float32

program = os.path.abspath(sys.argv[1])
if len(sys.argv) > 2 and sys.argv[2]:
    os.environ["VK_DRIVER_FILES"] = sys.argv[2]


def near(name, value, expected, relative=SAME, absolute=0.0):
    check(name, abs(value - expected) <= relative * abs(expected) + absolute, f"{value!r}, expected {expected!r}")


# ---- Running the program ----

def run(*arguments, stdin=b""):
    done = subprocess.run([program, *arguments], input=stdin, capture_output=True, timeout=300, check=False)
    said = NOTICE.sub("", done.stderr.decode())
    check(f"{arguments[0]} works and is silent", done.returncode == 0 and not said, done.returncode, said, arguments)
    return done.stdout.decode()


def perplexity(*arguments, **more):
    return json.loads(run("perplexity", "--json", *arguments, **more))


class Text:
    def __init__(self, place, content, special=False):
        self.place = place
        with open(place, "w", encoding="utf-8") as file:
            file.write(content)
        ids = run("tokenize", "-f", place, *([] if special else ["--no-special"])).split()
        self.ids = np.array(ids, dtype=np.int32)


def noisy_demo(place):
    """The demo model with noise on every weight, an eighth of its size at most."""
    os.mkdir(place)
    for name in ("config.json", "tokenizer.model"):
        shutil.copy(os.path.join(DEMO, name), place)
    with open(os.path.join(DEMO, "model.safetensors"), "rb") as file:
        data = bytearray(file.read())
    size, = struct.unpack_from("<Q", data)
    patterns = np.frombuffer(data, "<u2", offset=8 + size)
    noise = np.random.default_rng(7).integers(-8, 9, patterns.size)  # of a mantissa of 7 bits
    patterns[:] = (patterns & 0xff80) | np.clip((patterns & 0x7f).astype(np.int64) + noise, 0, 127).astype(np.uint16)
    with open(os.path.join(place, "model.safetensors"), "wb") as file:
        file.write(data)


# ---- The same in float64 ----

def windows(count, size, stride):
    """(begin, [scored]) of each window: a token is scored by the first with size // 2 tokens before it."""
    found = {}
    for token in range(count):
        for begin in range(0, token + 1, stride):
            if token < begin + size - 1 and (count < size or token - begin + 1 >= size // 2):
                found.setdefault(begin, []).append(token)
                break
    return sorted(found.items())


def logits_of(model, ids, cut, work):
    """The scored tokens, and the logits before each of them."""
    rows, came = [], []
    for begin, scored in cut:
        np.save(work + "/in.npy", np.concatenate([[BOS], ids[begin:scored[-1]]]).astype(np.int32))
        run("logits", "-m", model, "--tokens", work + "/in.npy", "-o", work + "/out.npy")
        rows.append(np.load(work + "/out.npy")[[token - begin for token in scored]].astype(np.float64))
        came += [ids[token] for token in scored]
    return np.array(came), np.concatenate(rows)


def log_softmax(logits):
    low = logits - logits.max(axis=1, keepdims=True)
    return low - np.log(np.exp(low).sum(axis=1, keepdims=True))


def standard_error(values):
    return np.std(values, ddof=1) / np.sqrt(len(values))


def read_base(place, ids):
    """Header and rows as host/cli/logit_file.c has them: log p of the token that came, top, logits."""
    with open(place, "rb") as file:
        data = file.read()
    magic, text, vocabulary, window, stride, scored = struct.unpack_from("<8sQ4I", data)
    fnv = 0xcbf29ce484222325
    for byte in ids.tobytes():
        fnv = (fnv ^ byte) * 0x100000001b3 % 2**64
    check("base: header", (magic, text, vocabulary) == (b"PDOTLOG1", fnv, VOCABULARY), magic, text, fnv, vocabulary)
    rows = np.frombuffer(data, [("log", "<f8"), ("step", "<f4"), ("top", "<u4"), ("below", "<u2", vocabulary),
                                ("sum", "<u8")], offset=40)
    check("base: rows", len(rows) == scored, len(rows), scored)
    return rows, window, stride, -(rows["step"].astype(np.float64)[:, None] * rows["below"])


# ---- Checks ----

def check_alone(name, report, logs, came, cut, text):
    """Perplexity and counts; returns the losses."""
    loss = -logs[np.arange(len(came)), came]
    near(f"{name}: perplexity", report["perplexity"], np.exp(loss.mean()))
    near(f"{name}: its error", report["perplexity_error"], np.exp(loss.mean()) * standard_error(loss), 1e-5)
    near(f"{name}: loss", report["loss"], loss.mean())
    near(f"{name}: its error", report["loss_error"], standard_error(loss), 1e-5)
    read = sum(scored[-1] + 1 - begin for begin, scored in cut)
    for key, value in (("tokens", len(text.ids)), ("scored", len(came)), ("windows", len(cut)), ("read", read)):
        check(f"{name}: {key}", report[key] == value, report[key], value)
    check(f"{name}: speed", 0.99 < report["tokens_per_second"] * report["seconds"] / read < 1.01, report)
    return loss


def check_compared(name, report, own, loss, base_loss, came, base_logs):
    """All that a comparison says, from the logits that the file holds."""
    kl = (np.exp(base_logs) * (base_logs - own)).sum(axis=1)
    chosen = np.exp(-loss) - np.exp(-base_loss)
    near(f"{name}: base's perplexity", report["base_perplexity"], np.exp(base_loss.mean()))
    near(f"{name}: its error", report["base_perplexity_error"], np.exp(base_loss.mean()) * standard_error(base_loss), 1e-5)
    near(f"{name}: log ratio", report["log_ratio"], (loss - base_loss).mean(), 1e-5)
    near(f"{name}: its error", report["log_ratio_error"], standard_error(loss - base_loss), 1e-5)
    near(f"{name}: change of p", report["change"], chosen.mean(), 1e-5)
    near(f"{name}: its error", report["change_error"], standard_error(chosen), 1e-5)
    for key, share in (("median", 50), ("p90", 90), ("p99", 99), ("p999", 99.9), ("max", 100)):
        near(f"{name}: KL, {key}", report["kl"][key], np.percentile(kl, share), 1e-5, 1e-9)
    near(f"{name}: KL", report["kl"]["mean"], kl.mean(), 1e-5)
    near(f"{name}: its error", report["kl"]["error"], standard_error(kl), 1e-5)
    same = own.argmax(axis=1) == base_logs.argmax(axis=1)
    near(f"{name}: same top token", report["same_top"], same.mean())
    near(f"{name}: its error", report["same_top_error"], standard_error(same))
    check(f"{name}: the noise shows", kl.mean() > 1e-4 and 0.5 < same.mean() < 1, kl.mean(), same.mean())


def check_bounds(name, report, base, own, kept):
    """The file's logits against the model's own, and KL by the bounds of host/cli/logit_file.h."""
    spread = base.max(axis=1) - base.min(axis=1)
    d = spread / 130000
    error = np.abs(kept - (base - base.max(axis=1, keepdims=True))).max(axis=1)
    check(f"{name}: logits kept", (error <= d + 1e-5).all(), (error / d).max())
    logs = log_softmax(base)
    kl = (np.exp(logs) * (logs - own)).sum(axis=1).mean()
    apart = (np.exp(logs) * np.abs(logs - own)).sum(axis=1)
    bound = (d * d / 2 + np.expm1(2 * d) * apart).mean()
    near(f"{name}: KL from all digits", report["kl"]["mean"], kl, 1e-5, bound)
    return d


def check_models(noisy, text, options, size, stride, work):
    """Alone, saved, with itself, with the noisy model beside it."""
    name = " ".join(options) or "default"
    base_file = work + "/base"
    cut = windows(len(text.ids), size, stride)
    came, base = logits_of(DEMO, text.ids, cut, work)
    _, other = logits_of(noisy, text.ids, cut, work)
    own = log_softmax(other)
    saved = perplexity("-f", text.place, "--save-base", base_file, *options)
    base_loss = check_alone(name, saved, log_softmax(base), came, cut, text)
    check(f"{name}: nothing else is left", not [file for file in os.listdir(work) if file.startswith("base.")])
    rows, window, row_stride, kept = read_base(base_file, text.ids)
    check(f"{name}: base's windows", (window, row_stride) == (size, stride), window, row_stride)
    check(f"{name}: base's top", (rows["top"] == base.argmax(axis=1)).all())
    check(f"{name}: base's log p", np.abs(rows["log"] + base_loss).max() < 1e-4)
    itself = perplexity("-f", text.place, "--kl-base", base_file, *options)
    compared = perplexity("-f", text.place, "--kl-base", base_file, "-m", noisy, *options)
    loss = check_alone(f"{name}, noisy", compared, own, came, cut, text)
    check_compared(name, compared, own, loss, base_loss, came, log_softmax(kept))
    d = check_bounds(name, compared, base, own, kept)
    check(f"{name}: with itself", 0 <= itself["kl"]["max"] <= (d * d / 2).max() + 1e-12, itself["kl"], d.max())
    check(f"{name}: below 1e-7 with itself", itself["kl"]["mean"] < 1e-7, itself["kl"])
    check(f"{name}: like itself", (itself["same_top"], itself["change"], itself["log_ratio"]) == (1, 0, 0), itself)
    check(f"{name}: the base's perplexity is kept", itself["base_perplexity"] == saved["perplexity"], itself, saved)
    return compared


def check_table(text, noisy, base, report, options):
    """What people read holds the same numbers."""
    table = run("perplexity", "-f", text.place, "--kl-base", base, "-m", noisy, *options)
    numbers = dict(re.findall(r"^ *(\S.*?) {2,}(\S+)", table, re.MULTILINE))
    for title, value in (("perplexity", report["perplexity"]), ("KL divergence", report["kl"]["mean"]),
                         ("99.9 %", report["kl"]["p999"]), ("maximum", report["kl"]["max"]),
                         ("same top token", 100 * report["same_top"]), ("change of p", 100 * report["change"]),
                         ("base's perplexity", report["base_perplexity"]), ("scored", report["scored"])):
        near(f"table: {title}", float(numbers.get(title, "nan")), value, 1e-5)


def check_texts(work, long):
    """Short texts, special pieces, standard input."""
    one = Text(work + "/one", "a")
    check("one token", len(one.ids) == 1, one.ids)
    report = perplexity("-f", one.place)
    _, logits = logits_of(DEMO, one.ids, [(0, [0])], work)
    near("one token: perplexity", report["perplexity"], np.exp(-log_softmax(logits)[0, one.ids[0]]))
    check("one token: no error", report["perplexity_error"] is None and report["scored"] == 1, report)
    check("one token: table", "+/-" not in run("perplexity", "-f", one.place))
    turn = "<start_of_turn>user\nHello!<end_of_turn>\n"
    plain, special = Text(work + "/turn", turn), Text(work + "/turn", turn, special=True)
    check("special pieces are fewer", len(special.ids) < len(plain.ids), special.ids, plain.ids)
    check("plain by default", perplexity("-f", plain.place)["tokens"] == len(plain.ids))
    check("--special", perplexity("-f", plain.place, "--special")["tokens"] == len(special.ids))
    with open(long.place, "rb") as file:
        piped = perplexity("-f", "-", "--context", "64", stdin=file.read())
    check("standard input", piped["perplexity"] == perplexity("-f", long.place, "--context", "64")["perplexity"], piped)


def check_lifelike(work):
    """make_checkpoint.py --lifelike: distributions of a few nats, which do not name the token just read."""
    model = work + "/lifelike"
    sizes = "--layers 2 --d-model 128 --heads 2 --kv-heads 1 --head-dim 64 --hidden 256 --vocab 2000".split()
    subprocess.run([sys.executable, os.path.join(HERE, "make_checkpoint.py"), *sizes, "--lifelike", model], check=True)
    ids = np.random.default_rng(5).integers(3, 2000, 64).astype(np.int32)
    _, logits = logits_of(model, ids, [(0, range(64))], work)
    logs = log_softmax(logits)
    entropy = -(np.exp(logs) * logs).sum(axis=1)
    check("lifelike: entropy", 2 < entropy.mean() < 5, entropy)
    check("lifelike: the token just read", (logits.argmax(axis=1)[1:] == ids[:-1]).mean() < 0.1)


def check_terminal(text):
    """Progress on a terminal, gone at the end."""
    status, out, shown = on_terminal([program, "perplexity", "-f", text.place, "--context", "32"])
    check("terminal: progress", re.search(rb"\rscoring +\d+ %, perplexity [\d.]+", shown), shown[:300])
    check("terminal: taken away", shown.endswith(b"\r" + b" " * 60 + b"\r"), shown[-100:])
    check("terminal: the result", status == 0 and out.startswith(b"perplexity "), out)


def check_interrupt(work, text):
    """A signal while a base is saved leaves nothing behind."""
    place = work + "/interrupted"
    os.mkdir(place)
    with open(text.place, "rb") as file:
        content = file.read() * 200
    process = subprocess.Popen([program, "perplexity", "-f", "-", "--save-base", place + "/base"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(content)
    process.stdin.close()
    process.stdin = None
    for _ in range(6000):
        if os.listdir(place) or process.poll() is not None:
            break
        time.sleep(0.01)
    begun = os.listdir(place)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    said = NOTICE.sub("", err.decode())
    check("interrupted: while writing", begun and begun != ["base"], begun)
    check("interrupted: nothing is left", not os.listdir(place), os.listdir(place))
    check("interrupted: one sentence", process.returncode == 1 and not out and re.fullmatch(r"peridot: .*stopped.*\n", said),
          process.returncode, out, said)


def main():
    with open(PROMPTS, encoding="utf-8") as file:
        prompts = [json.loads(line)["turns"] for line in file]
    with tempfile.TemporaryDirectory(prefix="peridot-perplexity-") as work:
        noisy = work + "/noisy"
        noisy_demo(noisy)
        text = Text(work + "/text", "\n".join(turn for turns in prompts[:22] for turn in turns))
        check("the text is longer than a window", 520 < len(text.ids) < 2000, len(text.ids))
        check_models(noisy, text, [], 512, 511, work)
        short = Text(work + "/short", "\n".join(turn for turns in prompts[22:30] for turn in turns))
        options = ["--context", "65", "--stride", "40"]
        report = check_models(noisy, short, options, 65, 40, work)
        check_table(short, noisy, work + "/base", report, options)
        whole = ["--context", "1000"]
        check("it fits in a window", len(short.ids) < 1000)
        check_models(noisy, short, whole, 1000, 999, work)
        check_texts(work, short)
        check_lifelike(work)
        check_terminal(short)
        check_interrupt(work, text)
    finish()


if __name__ == "__main__":
    main()
