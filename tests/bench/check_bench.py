#!/usr/bin/python3
"""peridot-bench as users run it: PROGRAM [DRIVER ...].

`model`, `compile` and a few of `kernels` on every driver given, a report of them, and `compile` for AMD's cards, where
Mesa's driver for them is there: what they write is read back here as JSON, CSV and HTML and held to what must be so of
any measurement; the check against a table is given planted faults; bad input gets one sentence. Ends with a line
"N passed, N failed".
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

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "..", "..", "host", "demo", "model")
program = os.path.abspath(sys.argv[1])
drivers = [driver for driver in sys.argv[2:] if driver]
passed = failed = 0


def check(name, good, *shown):
    global passed, failed
    passed += bool(good)
    failed += not good
    if not good:
        print(f"FAILED {name}:", *shown)


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
            (["compile", "--kernel", "nothing"], "--kernel"), (["compile", "--check", "/nowhere"], "/nowhere"),
            (["compile", "--check", os.path.join(DEMO, "config.json")], "config.json"),
            (["compile", "--renew", os.path.join(folder, "new.csv")], "--families"),
            (["compile", "--device", "0", "--families", "navi21"], "exclude")):
        _, said = run(*arguments, driver=drivers[0] if drivers else None, good=False)
        check("it says what is wrong", words in said, arguments, said)
    for arguments in ([], ["--help"], ["model", "--help"], ["compile", "--help"], ["report", "--help"]):
        out, _ = run(*arguments)
        check("help with an example", "peridot-bench compile --" in out or "peridot-bench model -" in out,
              out)


with tempfile.TemporaryDirectory() as work:
    results = []
    for number, each in enumerate(drivers or [None]):
        model_on(each, work)
        compile_here(each)
        os.rename(os.path.join(work, "first.json"), os.path.join(work, f"model{number}.json"))
        results += [kernels_on(each, work, number), os.path.join(work, f"model{number}.json")]
        report_of(results[-2:], work)
    csv_on(drivers[0] if drivers else None, work)
    compile_families(work)
    report_of(results, work)
    bad_files(results[0], work)
    for each in results[:2]:
        hostile_file(each, work)
    bad_input(work)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
