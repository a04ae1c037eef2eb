#!/usr/bin/python3
"""The program in a pipe, with the built-in demo model: PROGRAM [DRIVER].

What a conversation keeps, forgets, saves and says; that generate repeats itself for a seed; that tokenize
gives the published ids. Ends with a line "N passed, N failed".
"""
import json
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from checks import check, finish  # noqa: E402

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")
program = sys.argv[1]
if len(sys.argv) > 2 and sys.argv[2]:
    os.environ["VK_DRIVER_FILES"] = sys.argv[2]


def run(arguments, text=""):
    done = subprocess.run([program, *arguments], input=text.encode(), capture_output=True, timeout=120)
    if done.returncode:
        print(f"exit status {done.returncode}: {arguments}\n{done.stderr.decode()}")
    return done.stdout.decode()  # raises if it is not UTF-8


def chat(lines, *options):
    """The lines that a chat answers with; statistics are on."""
    out = run(["chat", "--temperature", "0", *options], "\n".join(["/stats", *lines]) + "\n")
    check("no colours in a pipe", "\x1b" not in out, out)
    return [line for line in out.splitlines() if line != "[statistics on]"]


def statistics(answers):
    """(prompt tokens, answer tokens, context) after each answer."""
    found = [re.match(r"\[prompt (\d+) tokens.*answer (\d+) tokens.*context (\d+) of (\d+)\]", line) for line in answers]
    return [tuple(int(number) for number in match.groups()[:3]) for match in found if match]


def said(answers):
    return [line for line in answers if not line.startswith("[")]


def test_memory():
    out = chat(["My name is Ana.", "I have a cat.", "What is my name?", "/regen", "/undo", "/undo", "What pet do I have?",
                "/reset", "What is my name?"])
    answers, costs = said(out), statistics(out)
    check("recalls a name", "Ana" in answers[2], out)
    check("regenerates", answers[3] == answers[2], out)
    check("undoes", "not told me" in answers[4], out)
    check("resets", "not told me" in answers[5], out)
    # a turn costs its own tokens: what closes the last answer, and the new question
    for (_, _, before), (prompt, answer, after) in zip(costs[:2], costs[1:3]):
        check("prefills only what is new", after - before == prompt + answer and prompt < 40, costs)
    check("regenerates without a prompt", costs[3][0] == 0, costs)


def test_full_context():
    out = chat(["My name is Ana.", *(f"What is {i} + 1?" for i in range(12)), "What is my name?"], "--context", "96")
    answers, costs = said(out), statistics(out)
    check("says that turns are forgotten", sum("oldest" in line for line in out) >= 2, out)
    check("goes on right", answers[1:13] == [f"{i} + 1 = {i + 1}." for i in range(12)], out)
    check("has forgotten the first turn", "not told me" in answers[13], out)
    check("stays within the context", len(costs) == 14 and all(length <= 96 for _, _, length in costs), costs)


def test_saving(folder):
    place = os.path.join(folder, "saved")
    chat(["My name is Ana.", "I have a cat.", f"/save {place}"])
    out = chat([f"/load {place}", "What is my name?", "/undo", "What pet do I have?"])
    check("goes on where it left off", "Ana" in said(out)[0] and "cat" in said(out)[1], out)
    check("loads without prefilling", statistics(out)[0][0] < 40, out)


def test_input():
    out = chat(['"""', "My name", "is Ana.", '"""', "What is \\", "my name?"])
    check("takes several lines", len(said(out)) == 2 and "Ana" in said(out)[0], out)
    out = chat(["/system You are kind.", "Who are you?", "/set temperature 0.5", "/set top-k 3", "Hello!", "/quit", "Hello!"])
    check("quits", len(said(out)) == 2, out)


def test_generate():
    def text(seed, *options):
        return run(["generate", "-p", "My name is", "-n", "24", "--temperature", "1.5", "--seed", seed, *options])

    check("one seed, one text", text("7") == text("7"))
    check("other seeds, other texts", len({text(str(seed)) for seed in range(4)}) > 1)
    whole = json.loads(text("7", "--json"))
    check("the same as JSON", isinstance(whole, dict) and text("7").strip() in json.dumps(whole, ensure_ascii=False), whole)
    greedy = ["generate", "--chat", "-p", "What is 3 + 4?", "--temperature", "0"]
    check("answers a message", "3 + 4 = 7." in run(greedy))
    check("stops at a string", "=" not in run([*greedy, "--stop", "="]) and "3 + 4" in run([*greedy, "--stop", "="]))
    check("reads standard input", run(["generate", "--chat", "--temperature", "0"], "What is 3 + 4?").strip() == run(greedy).strip())


def test_tokenize():
    tokenizer = os.path.join(DATA, "tokenizer.model")
    with open(os.path.join(DATA, "tokenizer.vectors.jsonl"), encoding="utf-8") as file:
        vectors = [json.loads(line) for line in file]
    text = "".join(json.dumps(vector["text"]) + "\n" for vector in vectors)
    got = [json.loads(line) for line in run(["tokenize", "--tokenizer", tokenizer, "--jsonl"], text).splitlines()]
    wrong = [vector["text"] for vector, ids in zip(vectors, got) if ids != vector["ids"]]
    check("tokenizes", len(got) == len(vectors) and not wrong, wrong[:3])


with tempfile.TemporaryDirectory() as scratch:
    test_memory()
    test_full_context()
    test_saving(scratch)
test_input()
test_generate()
test_tokenize()
finish()
