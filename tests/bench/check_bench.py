#!/usr/bin/python3
"""peridot-bench as users run it: PROGRAM [DRIVER ...].

`model`, `compile` and `kernels` on every driver given, a report of them, and `compile` for AMD's cards, where Mesa's
driver for them is there: what they write is read back here as JSON, CSV and HTML and held to what must be so of any
measurement; the check against a table and the checks of kernels are given planted faults; bad input gets one sentence.
Ends with a line "N passed, N failed".
"""
import collections
import csv
import glob
import html.parser
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from checks import check, finish  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
SHADERS = os.path.join(HERE, "..", "..", "shaders")
EXAMPLES = os.path.join(HERE, "..", "..", "bench", "examples")
DEMO = os.path.join(HERE, "..", "..", "host", "demo", "model")
program = os.path.abspath(sys.argv[1])
drivers = [driver for driver in sys.argv[2:] if driver]


def run(*arguments, driver=None, good=True):
    """Standard output and error of one call, which must succeed, or else complain in one sentence."""
    environment = dict(os.environ, **({"VK_DRIVER_FILES": driver} if driver else {}))
    done = subprocess.run([program, *arguments], capture_output=True, timeout=300, check=False, env=environment)
    out, said = done.stdout.decode(), done.stderr.decode()
    if good:
        check("it works: " + " ".join(arguments), done.returncode == 0, done.returncode, said)
    else:
        lines = said.splitlines()
        check("it complains: " + " ".join(arguments), done.returncode == 1 and not out and len(lines) == 1 and
              lines[0].startswith("peridot-bench: "), done.returncode, out, said)
    return out, said


def positive(row, *keys):
    return all(isinstance(row.get(key), (int, float)) and math.isfinite(row[key]) and row[key] > 0 for key in keys)


def median(values):
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


# ---- model ----

def check_speed(rows, depths):
    names = [(row["test"], row["depth"]) for row in rows]
    check("each test at each depth", names == [(test, depth) for depth in depths for test in ("pp16", "tg8")], names)
    for row in rows:
        samples = row["tokens_per_second_samples"]
        check("runs", row["runs"] == len(samples) == 3 and min(samples) > 0, row)
        check("the median", math.isclose(row["tokens_per_second"], median(samples), rel_tol=1e-9), row)
        check("speed", positive(row, "tokens_per_second", "cpu_ms_per_token"), row)
        if row["test"] == "pp16":
            # the first token comes after the prompt: never sooner than the fastest prompt took
            check("first token", row["first_token_ms"] > 1e3 * 16 / max(samples), row)
        else:
            check("bandwidth", positive(row, "gb_per_second", "limit_percent"), row)


def check_breakdown(rows, recorded):
    for depth in sorted({row["depth"] for row in rows}):
        here = [row for row in rows if row["depth"] == depth]
        kernels = [row for row in here if not row["kernel"].startswith("(")]
        sums = {row["kernel"]: row for row in here if row["kernel"].startswith("(")}
        check("every kernel is one of a step", {row["kernel"] for row in kernels} == recorded,
              {row["kernel"] for row in kernels} ^ recorded)
        for row in kernels:
            check("a kernel's time", positive(row, "microseconds", "dispatches", "share_percent"), row)
        steps = len(sums["(all kernels)"]["microseconds_samples"])
        for step in range(steps):
            total = sum(row["microseconds_samples"][step] for row in kernels)
            check("the sum of a step", math.isclose(total, sums["(all kernels)"]["microseconds_samples"][step],
                                                    rel_tol=1e-9), step, total)
            check("kernels take less than the step", total < sums["(step with timestamps)"]["microseconds_samples"][step],
                  step, total)
        layers = next(row["dispatches"] for row in kernels if row["kernel"] == "matvec_qkv")
        residuals = next(row["dispatches"] for row in kernels if row["kernel"] == "matvec_residual")
        check("two residuals a layer", residuals == 2 * layers == 8, residuals, layers)
        check("the plain step is there", positive(sums["(step without)"], "microseconds"), sums)


def check_about(about, model):
    check("what it ran on", all(isinstance(about.get(key), str) and about[key] for key in (
        "device", "driver", "commit", "weights", "kv", "model", "fingerprint")), about)
    check("the model's path", about["model"] == model, about["model"])


RECORDED = {"embed", "matvec_qkv", "attention_decode", "attention_join", "matvec_residual", "matvec_geglu",
            "matvec_head", "sample_score", "sample_draw", "sample_finish"}


def batches_on(driver, model):
    rows = json.loads(run("model", "-m", model, "--quick", "--pp", "0", "--tg", "4", "--steps", "0", "--depth", "0",
                          "--batch", "1,3", "--json", driver=driver)[0])["speed"]
    check("sessions together", [(row["test"], row.get("sessions")) for row in rows] ==
          [("tg4", None), ("1 x tg4", 1), ("3 x tg4", 3)], rows)
    for row in rows[1:]:
        check("against one alone", math.isclose(row["times_one"], row["tokens_per_second"] / rows[0]["tokens_per_second"],
                                                rel_tol=1e-9), row)
        check("a batch's bandwidth", positive(row, "gb_per_second", "cpu_ms_per_token"), row)
    run("model", "-m", model, "--tg", "0", "--batch", "2", driver=driver, good=False)
    run("model", "-m", model, "--batch", "9", driver=driver, good=False)


def model_on(driver, folder):
    model = os.path.join(folder, 'de"mo, µ')  # a name that needs quoting
    if not os.path.exists(model):
        os.symlink(os.path.abspath(DEMO), model)
    first = os.path.join(folder, "first.json")
    table, said = run("model", "-m", model, "--quick", "-o", first, driver=driver)
    check("no colours in a pipe, no progress", "\033" not in table and not said, said)
    with open(first, encoding="utf-8") as file:
        result = json.load(file)
    check("a result file", result["peridot_bench"] == 1 and result["command"] == "model", result)
    check_about(result["about"], model)
    check("the start", len(result["start"]) == 1 and positive(result["start"][0], "read_gb_per_second", "copy_gb_per_second",
                                                              "seconds_loading", "seconds_compiling"), result["start"])
    check_speed(result["speed"], [0, 16])
    check_breakdown(result["kernels"], RECORDED)
    check("the table shows the kernels", all(kernel in table for kernel in RECORDED), table)
    batches_on(driver, model)
    # --compare of a file with itself: nothing changed; with three runs nothing could have
    out, _ = run("model", "--compare", first, first, "--json")
    verdicts = {row["verdict"] for row in json.loads(out)["changes"]}
    check("nothing changed", verdicts == {"too few runs to tell"}, verdicts)
    planted = json.loads(json.dumps(result))
    for file, factor in ((result, 1.0), (planted, 1.2)):
        for row in file["speed"]:
            row["tokens_per_second_samples"] = [factor * (100 + 0.1 * i) for i in range(5)]
    planted["about"]["driver"] = "another"
    paths = [os.path.join(folder, name) for name in ("a.json", "b.json")]
    for path, file in zip(paths, (result, planted)):
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(file, stream)
    compared = json.loads(run("model", "--compare", *paths, "--json")[0])
    check("a fifth more is seen", {row["verdict"] for row in compared["changes"] if row["figure"] == "tokens/s"} ==
          {"better"}, compared["changes"])
    check("the other driver is seen", [row["setting"] for row in compared["settings"]] == ["driver"], compared)


def slices_on(driver):
    out, _ = run("slices", "-m", DEMO, "--quick", "--budget", "300,3000", "--json", driver=driver)
    rows = json.loads(out)["slices"]
    check("a row a budget", [row["budget_us"] for row in rows] == [300, 3000], rows)
    for row in rows:
        check("every frame is a slice", row["slices"] == 60 - 20, row)
        check("times", positive(row, "median_share_percent", "used_percent", "submit_us"), row)
        check("in order", row["median_share_percent"] <= row["p99_share_percent"] <= row["worst_share_percent"], row)
    run("slices", "--budget", "0", "-m", DEMO, good=False)
    run("slices", good=False)


def csv_on(driver, folder):
    path = os.path.join(folder, "run.csv")
    out = run("model", "-m", os.path.join(folder, 'de"mo, µ'), "--quick", "--json", driver=driver)[0]
    run("model", "-m", os.path.join(folder, 'de"mo, µ'), "--quick", "--steps", "1", "--csv", "-o", path, driver=driver)
    file = json.loads(out)
    with open(path, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    check("tables in CSV", {row["table"] for row in rows} == {"start", "speed", "kernels"}, rows)
    check("the model in CSV", {row["model"] for row in rows} == {file["about"]["model"]}, rows[0])
    check("numbers in CSV", all(float(row["tokens_per_second"]) > 0 for row in rows if row["table"] == "speed"), rows)
    check("no lists in CSV", not any("samples" in key for key in rows[0]), rows[0])


# ---- compile ----

def compile_here(driver):
    rows = json.loads(run("compile", "--kernel", "rmsnorm,attention_join", "--json", driver=driver)[0])["kernels"]
    names = [row["kernel"] + "/" + row["variant"] for row in rows]
    check("what was chosen", names[0] == "rmsnorm/portable" and names[-1] == "attention_join/portable", names)
    rows = json.loads(run("compile", "--kernel", "embed", "--type", "f16", "--json", driver=driver)[0])["kernels"]
    check("a type", [row["type"] for row in rows] == ["f16"], rows)
    rows = json.loads(run("compile", "--quick", "--json", driver=driver)[0])["kernels"]
    with open(os.path.join(HERE, "..", "..", "engine", "kernels.def"), encoding="utf-8") as file:
        kernels = re.findall(r"^KERNEL\((\w+)", file.read(), re.MULTILINE)
    check("every kernel, in two types", list(dict.fromkeys(row["kernel"] for row in rows)) == kernels and
          {row["type"] for row in rows} == {"", "bf16", "q4_k"}, rows)
    check("each has one variant in use", all(len({row["variant"] for row in rows if row["kernel"] == kernel and
                                                  row["in_use"]}) == 1 for kernel in kernels), rows)


def compile_families(folder):
    if not glob.glob("/usr/share/vulkan/icd.d/radeon_icd*.json"):
        print("left out: no AMD driver here to compile with")
        return
    out = run("compile", "--families", "navi21,vega10", "--kernel", "rmsnorm,matvec_head", "--type", "q4_0",
              "--json")[0]
    rows = json.loads(out)["kernels"]
    check("two families", [row["family"] for row in rows] == ["navi21"] * 6 + ["vega10"] * 6, rows)
    for row in rows:
        check("its figures", positive(row, "registers", "occupancy", "instructions", "cycles") and row["spills"] == 0,
              row)
    table = run("compile", "--families", "navi21,vega10", "--kernel", "rmsnorm")[0]
    check("one column a family", re.search(r"kernel +variant .*navi21 +vega10", table), table)
    code = run("compile", "--families", "navi21", "--kernel", "rmsnorm/portable", "--asm")[0]
    check("machine code", "==== navi21: rmsnorm/portable ====" in code and "s_endpgm" in code, code[-500:])
    planted_faults(folder)


def planted_faults(folder):
    path = os.path.join(folder, "table.csv")
    choice = ["--kernel", "rmsnorm,embed"]
    run("compile", "--renew", path, "--families", "navi21", "--type", "q4_0,bf16", *choice)
    out = run("compile", "--check", path, *choice)[0]
    check("the table is as it was made", "4 kernels compared" in out and ": 0 faults" in out, out)
    with open(path, encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    head = rows[0]

    def fails(name, message, edit):
        changed = [list(row) for row in rows]
        edit(changed)
        with open(path, "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(changed)
        done = subprocess.run([program, "compile", "--check", path, *choice], capture_output=True, timeout=300,
                              check=False)
        text = done.stdout.decode()
        check(name, done.returncode == (message is not None and not message.startswith("left out")) and
              (message or "") in text, done.returncode, text)

    def shrink(changed):
        cell = head.index("instructions")
        changed[1][cell] = str(int(int(changed[1][cell]) / 1.15))

    def other_mesa(changed):
        for row in changed[1:]:
            row[head.index("driver")] = "radv Mesa 0"

    def fewer_registers(changed):
        for row in changed[1:]:
            row[head.index("registers")] = "1"

    fails("growth", "instructions (+", shrink)
    fails("registers", "registers (+", fewer_registers)
    fails("a kernel that is missing", "is not in", lambda changed: changed.pop())
    fails("another compiler", "left out: navi21", other_mesa)


# ---- kernels, for the roofs ----

def kernels_on(driver, folder, number):
    path = os.path.join(folder, f"kernels{number}.json")
    run("kernels", "--quick", "--kernel", "rmsnorm,matvec_qkv,attention_decode", "--type", "q4_k", "-o", path,
        driver=driver)
    with open(path, encoding="utf-8") as file:
        result = json.load(file)
    about = result["about"]
    check("the ceilings", positive(about, "read_gb_per_second", "copy_gb_per_second", "multiply_add_gflop_per_second"),
          about)
    bandwidth = max(about["read_gb_per_second"], about["copy_gb_per_second"])
    for row in result["kernels"]:
        check("a share of the bandwidth", math.isclose(row["bandwidth_percent"], 100 * row["gb_per_second"] / bandwidth,
                                                       rel_tol=1e-9), row)
        computes = "gflop_per_second" in row
        check("what computes", computes == (row["kernel"] != "rmsnorm") == ("arithmetic_percent" in row), row)
        roof = bandwidth
        if computes:
            # min(bandwidth x intensity, arithmetic), as operations a byte
            intensity = row["gflop_per_second"] / row["gb_per_second"]
            roof = min(bandwidth, about["multiply_add_gflop_per_second"] / intensity)
        check("the share of the roof", math.isclose(row["limit_percent"], 100 * row["gb_per_second"] / roof,
                                                    rel_tol=1e-9), row, about)
    return path


# ---- report ----

class Page(html.parser.HTMLParser):
    """What a page holds; `faults` has what is not well-formed, or would be fetched from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.open, self.faults, self.tags, self.text = [], [], collections.Counter(), []
        self.feed(text)
        self.close()
        if self.open:
            self.faults.append(f"left open: {self.open}")

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        if tag == "meta":
            return
        self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action") or name.startswith("on"):
                self.faults.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_data(self, data):
        self.text.append(data)


def read_page(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    page = Page(text)
    check("a page is well-formed, and alone", not page.faults and page.tags["script"] == page.tags["style"] == 1,
          page.faults)
    for plot in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        try:
            box = [float(number) for number in xml.etree.ElementTree.fromstring(plot).get("viewBox").split()]
        except xml.etree.ElementTree.ParseError as fault:
            check("a plot is XML", False, fault, plot)
            continue
        places = [float(value) for value in re.findall(r' (?:x[12]?)="([-\d.]+)"', plot)]
        heights = [float(value) for value in re.findall(r' (?:y[12]?)="([-\d.]+)"', plot)]
        check("a plot keeps to its size", min(places) >= 0 and max(places) <= box[2] and min(heights) >= 0 and
              max(heights) <= box[3], box, max(places), max(heights))
    return page, text


def report_of(paths, folder):
    page_path = os.path.join(folder, "report.html")
    files = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            files.append(json.load(file))
    out, said = run("report", *paths, "-o", page_path)
    check("a report says nothing", not out and not said, out, said)
    page, text = read_page(page_path)
    timed = [row for file in files if file["command"] == "kernels" for row in file["kernels"]]
    steps = [row for file in files if file["command"] == "model" for row in file["kernels"] if row["kernel"][0] != "("]
    cycles = [row for file in files if file["command"] == "compile" for row in file["kernels"] if "cycles" in row]
    check("a bar for each row", page.tags["rect"] == len(timed) + len(steps) + len(cycles), page.tags)
    roofs = sum(file["command"] == "kernels" for file in files)
    depths = len({row["test"] for file in files if file["command"] == "model" for row in file["speed"]})
    check("roofs and depths", page.tags["figcaption"] == roofs + depths, page.tags)
    marks = sum("gflop_per_second" in row for row in timed)
    check("each kernel's mark", text.count("FLOP/byte, ") == marks, marks)
    for file in files:
        check("what it ran on", file["about"]["commit"] in page.text, file["about"])


def bad_files(path, folder):
    """Damaged, wrong and mixed files: one sentence each, and the page that was there stays."""
    output = os.path.join(folder, "kept.html")
    with open(output, "w", encoding="utf-8") as file:
        file.write("kept")
    with open(path, encoding="utf-8") as file:
        whole = file.read()
    good = json.loads(whole)
    other = os.path.join(folder, "bad.json")
    for name, text, words in (
            ("cut off", whole[:len(whole) // 2], "damaged"), ("empty", "", "damaged"), ("no object", "[]", "damaged"),
            ("another format", json.dumps(dict(good, peridot_bench=2)), "this version"),
            ("a comparison", json.dumps(dict(good, command="model --compare")), "model --compare"),
            ("no command", json.dumps({key: good[key] for key in good if key != "command"}), "report shows"),
            ("no about", json.dumps(dict(good, about=3)), "measured on"),
            ("a table that is none", json.dumps(dict(good, kernels={"a": 1})), "kernels"),
            ("too many rows", json.dumps(dict(good, kernels=[{}] * 20001)), "rows"),
            ("rows that are none", json.dumps(dict(good, kernels=[1, 2])), "kernels")):
        with open(other, "w", encoding="utf-8") as file:
            file.write(text)
        _, said = run("report", path, other, "-o", output, good=False)
        check(f"{name}: it says so", words in said and other in said, said)
    for arguments, words in (([path], "-o"), (["-o", output], "files"), ([path, path, "-o", output], "twice"),
                             ([path, "-o", path], "another file"), ([folder, "-o", output], folder),
                             ([path, "-o", os.path.join(folder, "none", "r.html")], "none"),
                             (["/nowhere", "-o", output], "/nowhere"), ([path, "--json", "-o", output], "--json")):
        _, said = run("report", *arguments, good=False)
        check("it says what is wrong", words in said, arguments, said)
    with open(output, encoding="utf-8") as file:
        check("the page that was there stays", file.read() == "kept")
    with open(path, encoding="utf-8") as file:
        check("the results stay", file.read() == whole)


def hostile_file(path, folder):
    """Markup in every text of a file is text on the page."""
    def spoil(value):
        if isinstance(value, str):
            return '"><script>alert(1)</script>' + value
        if isinstance(value, dict):
            return {key: spoil(item) for key, item in value.items()}
        return [spoil(item) for item in value] if isinstance(value, list) else value

    with open(path, encoding="utf-8") as file:
        good = json.load(file)
    bad = dict(spoil(good), command=good["command"])
    spoilt, output = (os.path.join(folder, name) for name in ("spoilt.json", "spoilt.html"))
    with open(spoilt, "w", encoding="utf-8") as file:
        json.dump(bad, file)
    run("report", spoilt, "-o", output)
    page, _ = read_page(output)
    check("markup is text", any('"><script>alert(1)</script>' in text for text in page.text))


# ---- kernels ----

def lab(*arguments, driver=None, faults=False):
    """`kernels --quick --json`: its kernels by shape and variant in their order, and what it left out."""
    environment = dict(os.environ, **({"VK_DRIVER_FILES": driver} if driver else {}))
    done = subprocess.run([program, "kernels", "--quick", "--json", *arguments], capture_output=True, timeout=300,
                          check=False, env=environment)
    said = done.stderr.decode()
    check("the lab works: " + " ".join(arguments), done.returncode == faults and not said, done.returncode, said)
    file = json.loads(done.stdout)
    shapes = {}
    for row in file["kernels"]:
        shapes.setdefault((row["kernel"], row["type"], row["shape"]), {})[row["variant"]] = row
    return shapes, {(row["kernel"], row["variant"]): row["reason"] for row in file["left_out"]}


def check_ranking(rows):
    """The variants of one shape: all right, the fastest first, compared with the one in use."""
    times = [row["microseconds"] for row in rows]
    check("the fastest comes first", times == sorted(times), times)
    used = [row for row in rows if row["in_use"]]
    check("one is in use", len(used) == 1 and used[0]["ratio"] == 1 and "noise" not in used[0], rows)
    for row in rows:
        check("it is right", "fault" not in row and 0 <= row["error"] <= 1, row)
        samples = row["microseconds_samples"]
        check("its time", len(samples) == row["runs"] == 5 and math.isclose(row["microseconds"], median(samples)), row)
        check("its ratio", math.isclose(row["ratio"], row["microseconds"] / used[0]["microseconds"], rel_tol=1e-9), row)
        check("its bandwidth", positive(row, "gb_per_second", "limit_percent"), row)


def check_table(choice, chosen, driver):
    """Every variant in the kernel table of the kernels chosen (None: all) is there, or is left out with a reason."""
    with open(os.path.join(HERE, "..", "..", "engine", "kernels.def"), encoding="utf-8") as file:
        table = {found for found in re.findall(r"^VARIANT\((\w+), (\w+)", file.read(), re.MULTILINE)
                 if chosen is None or found[0] in chosen}
    shapes, left_out = lab(*choice, driver=driver)
    there = {(shape[0], variant) for shape, rows in shapes.items() for variant in rows}
    check("every variant of the table", there | set(left_out) == table and not there & set(left_out), there, left_out)
    for rows in shapes.values():
        check_ranking(list(rows.values()))
    return shapes


def rankings_on(driver):
    """On kernels that are quick, and whose variants are far apart."""
    chosen = ["rmsnorm", "kv_store", "matvec_geglu", "attention_join"]
    choice = ["--kernel", ",".join(chosen), "--type", "q4_k"]
    first = check_table(choice, chosen, driver)
    again, _ = lab(*choice, driver=driver)
    for shape, rows in first.items():
        one, other = next(iter(rows.values())), next(iter(again[shape].values()))
        noise = [run[row["variant"]].get("noise") for run in (rows, again[shape]) for row in (one, other)]
        check("two runs agree on the winner, or it is noise", one["variant"] == other["variant"] or "~" in noise, shape,
              rows, again[shape])


def checksum(data):
    """As engine/checksum.h has it."""
    value = 0xcbf29ce484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    return value


def used_in(shapes):
    """The variants in use, by shape."""
    return {shape[2]: [name for name, row in rows.items() if row["in_use"]] for shape, rows in shapes.items()}


def tuned_kernels(driver, folder):
    """The lab compares with what sessions run: a tuning's choice, made here of a true one."""
    tune = os.path.join(os.path.dirname(program), "..", "host", "cli", "peridot")
    environment = dict(os.environ, **({"VK_DRIVER_FILES": driver} if driver else {}))
    result = os.path.join(folder, "tune.json")
    subprocess.run([tune, "tune", "--shape", "2b", "--weights", "q4_k", "--seconds", "1", "-o", result], capture_output=True,
                   timeout=300, check=True, env=environment)
    run("report", result, "-o", os.path.join(folder, "tune.html"))
    text = " ".join(read_page(os.path.join(folder, "tune.html"))[0].text)
    check("a report of tuning", "What tuning chose" in text and "matvec_geglu" in text, text)
    path = glob.glob(os.path.join(os.environ["PERIDOT_CACHE_DIR"], "tuning-*"))[0]
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()[2:]
    words = next(line for line in lines if line.startswith("entry matvec_geglu q4_k 1 ")).split(" ")
    choice = ["--kernel", "matvec_geglu", "--type", "q4_k"]
    untuned, _ = lab(*choice, driver=driver)
    one, few = "small, 1 token", "small, 8 tokens"
    check("a tuning of other sizes", used_in(untuned) == {one: ["subgroup"], few: ["subgroup"]}, used_in(untuned))
    rows = untuned["matvec_geglu", "q4_k", one]
    portable, subgroup = (rows[name]["constants"].replace(" ", ",") for name in ("portable", "subgroup"))
    for variant, constants, name in (("portable", portable, "portable"),
                                     ("subgroup", subgroup.replace(",8,", ",4,"), "subgroup rows=4")):
        words[4], words[8:] = "512", [variant, constants, "1500"]
        body = ("\n".join([*lines[:2], " ".join(words)]) + "\n").encode()
        with open(path, "wb") as file:
            file.write(b"peridot-tuning 1\nchecksum %016x\n" % checksum(body) + body)
        tuned, _ = lab(*choice, driver=driver)
        check("what is tuned is in use", used_in(tuned) == {one: [name], few: ["subgroup"]}, used_in(tuned))
        check("beside the untuned ones", set(tuned["matvec_geglu", "q4_k", one]) == {*rows, name}, tuned)
        for shape in tuned.values():
            check_ranking(list(shape.values()))
    check("--no-tuning", used_in(lab("--no-tuning", *choice, driver=driver)[0]) == used_in(untuned))
    with open(path, "ab") as file:
        file.write(b"more")
    said = run("kernels", "--quick", "--kernel", "rmsnorm", "--json", driver=driver)[1]
    check("a damaged tuning gets a word", said.count("\n") == 1 and "damaged" in said, said)
    os.remove(path)


def planted(name):
    return os.path.join(HERE, "faults", name + ".comp")


def faulty_kernels(driver):
    """Each planted fault is named, and not timed; a missing barrier is found by test_mirror and test_footprint."""
    faults = {"one_size": r"512 columns: number 511 of 512 of y is nan", "reads_past": "of y is nan",
              "leaves_unwritten": "of y is nan", "writes_past": r"(changed byte|wrote) \d+ .*of y",
              "writes_input": "changed byte 0 of multiplier"}
    files = [word for name in ["right", *faults, "needs_float16", "needs_large_workgroup"] for word in ("--variant", planted(name))]
    shapes, left_out = lab("--kernel", "rmsnorm", *files, driver=driver, faults=True)
    rows = next(iter(shapes.values()))
    for name, words in faults.items():
        row = rows[name + ".comp"]
        check("the fault is found: " + name, re.search(words, row["fault"]) and "microseconds" not in row, row)
    check("faults come last", {row["variant"] for row in list(rows.values())[-len(faults):]} ==
          {name + ".comp" for name in faults}, rows)
    check_ranking([row for row in rows.values() if "fault" not in row])
    check("what is right is timed", "microseconds" in rows["right.comp"], rows)
    check("the missing feature", "Float16" in left_out.get(("rmsnorm", "needs_float16.comp"), ""), left_out)
    check("the large workgroup", "workgroup" in left_out.get(("rmsnorm", "needs_large_workgroup.comp"), ""), left_out)
    shapes, left_out = lab("--kernel", "rmsnorm", "--variant", planted("needs_subgroups"), "--minimal", driver=driver)
    check("what is not allowed", "no subgroup arithmetic" in left_out.get(("rmsnorm", "needs_subgroups.comp"), ""),
          left_out)


def own_variants(driver, folder):
    """GLSL with includes, defines and constants; SPIR-V; ours, from their files."""
    with open(os.path.join(folder, "scaled.glsl"), "w", encoding="utf-8") as file:
        file.write("layout(constant_id = 16) const uint WRONG = 1;\n#define AFTER SCALAR(c.y, first) *= 1 + WRONG\n")
    scaled = os.path.join(folder, "scaled.comp")
    with open(scaled, "w", encoding="utf-8") as file:
        file.write('#version 460\n#include "scaled.glsl"\n#include "rmsnorm.glsl"\n')
    module = os.path.join(os.path.dirname(program), "..", "shaders", "rmsnorm_portable.spv")
    shapes, _ = lab("--kernel", "rmsnorm", "--include", os.path.join(HERE, "faults"), "--variant", scaled, "--spec", "16=0",
                    "--variant", scaled, "--variant", module, "--workgroup", "32", "--variant",
                    os.path.join(EXAMPLES, "rmsnorm.comp"), "--spec", "0=128", driver=driver, faults=True)
    rows = next(iter(shapes.values()))
    check("a constant of its own", "fault" not in rows["scaled.comp 16=0"] and "y is" in rows["scaled.comp"]["fault"], rows)
    check("SPIR-V", "microseconds" in rows["rmsnorm_portable.spv workgroup=32"] and
          rows["rmsnorm_portable.spv workgroup=32"]["constants"] == "32 1 1", rows)
    check("the example", "microseconds" in rows["rmsnorm.comp workgroup=128"], rows)
    shapes, _ = lab("--kernel", "matvec_geglu/portable", "--type", "q4_k,bf16", "--variant",
                    os.path.join(SHADERS, "matvec.comp"), "-DSUBGROUP", "--workgroup", "0", "--rows", "2", driver=driver)
    check("ours by its file, in both types", {shape[1] for shape in shapes} == {"q4_k", "bf16"} and
          all(set(rows) == {"portable", "matvec.comp SUBGROUP workgroup=0 rows=2"} and
              all("fault" not in row for row in rows.values()) for rows in shapes.values()), shapes)


def damaged_modules(driver, folder):
    with open(os.path.join(os.path.dirname(program), "..", "shaders", "rmsnorm_portable.spv"), "rb") as file:
        module = file.read()
    name = module.index(b"main\0\0\0\0")
    path = os.path.join(folder, "damaged.spv")
    for what, content, words in (
            ("empty", b"", "0 bytes"), ("no words", module[:-1], "whole words"), ("cut", module[:-8], "damaged.spv"),
            ("another magic", b"\0" + module[1:], "begin"), ("an instruction of no words", module[:20] + bytes(4) +
                                                            module[24:], "is cut"),
            ("more behind it", module + b"\1\0\7\0", "is cut"), ("the header alone", module[:20], "main"),
            ("another entry", module[:name] + b"Main" + module[name + 4:], "main"),
            ("too many ids", module[:12] + b"\xff\xff\xff\x7f" + module[16:], "ids")):
        with open(path, "wb") as file:
            file.write(content)
        _, said = run("kernels", "--quick", "--kernel", "rmsnorm", "--variant", path, driver=driver, good=False)
        check("a damaged module: " + what, words in said and path in said, said)


def no_compiling(driver, folder):
    """Compile errors: file and line, also of what is included."""
    spoilt = os.path.join(folder, "spoilt.comp")
    with open(os.path.join(folder, "inner.glsl"), "w", encoding="utf-8") as file:
        file.write("\nfloat inner() { return 1 }\n")
    source = '#version 460\n#include "common.glsl"\n'
    for text, words in (
            (source + '#include "inner.glsl"\nvoid main() {}\n', os.path.join(folder, "inner.glsl") + ":2: "),
            (source + "void main() {}\n\nnonsense\n", spoilt + ":5: "),
            (source + '#include "nowhere.glsl"\nvoid main() {}\n', spoilt + ":3: "),
            ('#version 460\n#include "spoilt.comp"\n', "includes itself"),
            ("// needs: magic\n" + source + "void main() {}\n", "subgroup_shuffle"),
            ("", spoilt)):
        with open(spoilt, "w", encoding="utf-8") as file:
            file.write(text)
        _, said = run("kernels", "--kernel", "rmsnorm", "--variant", spoilt, driver=driver, good=False)
        check("file and line", words in said, text, said)
    _, said = run("kernels", "--kernel", "rmsnorm", "--variant", planted("does_not_compile"), driver=driver, good=False)
    check("a name that is not there", "does_not_compile.comp:5: 'nothing_of_this_name' : undeclared identifier" in said, said)


def takes_glsl():
    """A build without glslang says so, and what needs it is left out here."""
    done = subprocess.run([program, "kernels", "--kernel", "rmsnorm", "--variant", planted("does_not_compile")],
                          capture_output=True, timeout=300, check=False)
    without = b"built without glslang" in done.stderr
    if without:
        print("left out: this build takes no GLSL")
    return not without


def interfaces():
    """What each kernel is given: members up to the size that C says."""
    with open(os.path.join(HERE, "..", "..", "engine", "kernels.def"), encoding="utf-8") as file:
        kernels = re.findall(r'^KERNEL\((\w+), (\w+), "([^"]*)"', file.read(), re.MULTILINE)
    for kernel, constants, operands in kernels:
        out = run("kernels", "--interface", kernel)[0]
        size = int(re.search(rf"struct {constants}, (\d+) bytes", out)[1])
        members = [(int(at), 4 if kind in ("uint", "float") else 8)
                   for at, kind in re.findall(r"^ {1,5}(\d+)  (uint|float|[A-Z]\w+) +\w+", out.split("Push constants")[1]
                                              .split("Specialisation")[0], re.MULTILINE)]
        ends = [at + bytes_ for at, bytes_ in members]
        check("members follow each other", [at for at, _ in members] == [0, *ends[:-1]] and
              (ends[-1] + 7) // 8 * 8 == size, kernel, out)
        check("operands", all(re.search(rf"^  {word.split(':')[0]} +(read|written)", out, re.MULTILINE)
                              for word in operands.split()), out)
        check("its check", "tests/kernels/check_" in out and os.path.exists(
            os.path.join(HERE, "..", "..", re.search(r"tests/kernels/\w+\.c", out)[0])), out)


def bad_input(folder):
    for arguments, words in (
            (["nothing"], "no command"), (["model"], "-m"), (["model", "-m"], "needs a value"),
            (["model", "-m", "/nowhere"], "/nowhere"), (["model", "--runs", "0", "-m", DEMO], "--runs"),
            (["model", "--depth", "1,x", "-m", DEMO], "--depth"), (["model", "--weights", "q9", "-m", DEMO], "q9"),
            (["model", "--kv", "q9", "-m", DEMO], "--kv"), (["model", "--families", "navi21"], "--families"),
            (["model", "-m", DEMO, "--depth", "30000", "--quick"], "context"),
            (["model", "-m", DEMO, "--device", "none such", "--quick"], "none such"),
            (["model", "--compare", "/nowhere", "/nowhere"], "/nowhere"),
            (["model", "--compare", os.path.join(DEMO, "config.json"), "/nowhere"], "config.json"),
            (["kernels", "--kernel", "nothing", "--quick"], "--kernel"), (["kernels", "--tokens", "0"], "--tokens"),
            (["kernels", "--runs", "x"], "--runs"), (["kernels", "--variant"], "needs a value"),
            (["kernels", "--kernel", "matvec", "--variant", "x.comp"], "one kernel"),
            (["kernels", "--variant", "x.comp"], "--kernel"), (["kernels", "--rows", "4"], "--variant before it"),
            (["kernels", "--kernel", "rmsnorm", "--variant", "/nowhere"], "/nowhere"),
            (["kernels", "--variant", "x", "--spec", "16"], "ID=VALUE"),
            (["kernels", "--variant", "x", "--spec", "3=64"], "follow from the model"),
            (["kernels", "--variant", "x", "-D4=1"], "NAME=VALUE"), (["kernels", "--include", "/nowhere"], "a folder"),
            (["kernels", "--variant", "x", "--needs", "magic"], "packed_dot"),
            (["kernels", "--variant", "x", "--workgroup", "-1"], "--workgroup"),
            (["kernels", "--kernel", "rmsnorm", "--variant", DEMO], "regular file"),
            (["kernels", "--kernel", "rmsnorm", "--variant", os.path.join(DEMO, "model.safetensors")], "neither"),
            (["kernels", "--kernel", "embed", "--type", "q9", "--variant", planted("right")], "--type q9"),
            (["kernels", "--interface", "nothing"], "rmsnorm"),
            (["compile", "--kernel", "nothing"], "--kernel"), (["compile", "--check", "/nowhere"], "/nowhere"),
            (["compile", "--check", os.path.join(DEMO, "config.json")], "config.json"),
            (["compile", "--renew", os.path.join(folder, "new.csv")], "--families"),
            (["compile", "--device", "0", "--families", "navi21"], "exclude")):
        _, said = run(*arguments, driver=drivers[0] if drivers else None, good=False)
        check("it says what is wrong", words in said, arguments, said)
    for arguments in ([], ["--help"], ["model", "--help"], ["compile", "--help"], ["kernels", "--help"],
                      ["report", "--help"]):
        out, _ = run(*arguments)
        check("help with an example", any(each in out for each in (
            "peridot-bench compile --", "peridot-bench model -", "peridot-bench kernels --")), out)


with tempfile.TemporaryDirectory() as work:
    os.environ["PERIDOT_CACHE_DIR"] = os.path.join(work, "cache")
    results = []
    for number, each in enumerate(drivers or [None]):
        model_on(each, work)
        compile_here(each)
        os.rename(os.path.join(work, "first.json"), os.path.join(work, f"model{number}.json"))
        results += [kernels_on(each, work, number), os.path.join(work, f"model{number}.json")]
        report_of(results[-2:], work)
        rankings_on(each)
        if takes_glsl():
            faulty_kernels(each)
            own_variants(each, work)
    check_table(["--type", "q4_k"], None, drivers[0] if drivers else None)
    damaged_modules(drivers[0] if drivers else None, work)
    tuned_kernels(drivers[0] if drivers else None, work)
    if takes_glsl():
        no_compiling(drivers[0] if drivers else None, work)
    interfaces()
    slices_on(drivers[0] if drivers else None)
    csv_on(drivers[0] if drivers else None, work)
    compile_families(work)
    report_of(results, work)
    bad_files(results[0], work)
    for each in results[:2]:
        hostile_file(each, work)
    bad_input(work)
finish()
