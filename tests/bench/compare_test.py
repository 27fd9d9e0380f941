#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bench/compare.py with programs that only pretend."""
import json, pathlib, subprocess, sys, tempfile, unittest

COMPARE = pathlib.Path(__file__).resolve().parents[2] / "bench/compare.py"
FAKE = """#!/usr/bin/env python3
import json, pathlib, sys
log = pathlib.Path(__file__).parent / "log"
log.open("a").write(pathlib.Path(__file__).name + " " + " ".join(sys.argv[1:]) + "\\n")
def flag(name): return sys.argv[sys.argv.index(name) + 1]
speed = SPEED * (2 if "-rtr" in sys.argv else 1) + log.read_text().count(pathlib.Path(__file__).name)
rows = []
for n in flag("-p").split(","):
    rows.append({"n_threads": int(flag("-t")), "n_prompt": int(n), "n_gen": 0, "avg_ts": speed})
rows.append({"n_threads": int(flag("-t")), "n_prompt": 0, "n_gen": int(flag("-n")), "avg_ts": 0, "samples_ts": [1, speed / 10, 900]})
print("build: noise")
print(json.dumps(rows))
"""


class Compare(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        self.ours, self.peer = self.program("nibble-fake", FAKE.replace("SPEED", "400")), self.program("peer", FAKE.replace("SPEED", "100"))

    def tearDown(self):
        self.folder.cleanup()

    def program(self, name, text):
        path = self.path / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def run_compare(self, *more):
        command = [sys.executable, str(COMPARE), "-m", "model.gguf", "--ours", self.ours, "-t", "2", "--max-load", "1", *more]
        return subprocess.run(command, capture_output=True, text=True)

    def test_takes_turns_and_the_best_setting_counts(self):
        out = self.path / "out.json"
        done = self.run_compare("--peer", f"it={self.peer}", "--setting", "it=-rtr 1", "--rounds", "2", "--json", str(out))
        self.assertEqual(done.returncode, 0, done.stderr)
        runs = [line.split()[0] + (" -rtr" if "-rtr" in line else "") for line in (self.path / "log").read_text().splitlines()]
        turn = ["nibble-fake", "peer", "peer -rtr"]
        self.assertEqual(runs, turn + turn[::-1])
        self.assertIn("bench -m model.gguf -p 512 -n 128 -t 2 -r 1 -o json --no-peak", (self.path / "log").read_text())
        tests = json.loads(out.read_text())["tests"]
        self.assertEqual([test["test"] for test in tests], ["pp512", "tg128"])
        prompt = tests[0]["peers"]["it"]
        self.assertEqual(prompt["best"], "it -rtr 1")
        self.assertEqual(prompt["ratios"], [401 / 202, 402 / 203])
        self.assertIn("| it -rtr 1 |", done.stdout)
        self.assertIn("1.98 [1.98-1.99]", done.stdout)
        self.assertEqual(len({line.count("|") for line in done.stdout.splitlines()}), 1)

    def test_says_when_ours_is_slower(self):
        done = self.run_compare("--peer", f"it={self.peer}", "--rounds", "1", "--fail-below", "100")
        self.assertEqual(done.returncode, 1)
        self.assertIn("pp512: slower", done.stderr)

    def test_errors_name_the_program(self):
        cases = {self.program("breaks", "#!/bin/sh\necho 'no such file' >&2; exit 3\n"): "exit status 3: no such file",
                 self.program("silent", "#!/bin/sh\ntrue\n"): "no results", str(self.path / "absent"): "No such file",
                 self.program("odd", "#!/bin/sh\necho '[{\"n_threads\": 1}]'\n"): "n_prompt"}
        for command, wanted in cases.items():
            done = self.run_compare("--peer", f"it={command}")
            self.assertEqual(done.returncode, 2)
            self.assertIn("error: it: ", done.stderr)
            self.assertIn(wanted, done.stderr)
        for more in ([], ["--peer", "x"], ["--peer", f"it={self.peer}", "--setting", "else=-x"]):
            self.assertEqual(self.run_compare(*more).returncode, 2)

    def test_a_busy_machine_is_refused(self):
        done = self.run_compare("--peer", f"it={self.peer}", "--max-load", "-1")
        self.assertEqual(done.returncode, 2)
        self.assertIn("busy", done.stderr)

    def test_help_has_examples(self):
        done = subprocess.run([sys.executable, str(COMPARE), "--help"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0)
        self.assertIn("--setting \"ik=-rtr 1\"", done.stdout)


unittest.main()
