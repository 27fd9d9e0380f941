#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the speed of nibble with that of peers on the same model file, by turns."""
import argparse, json, os, pathlib, shlex, statistics, subprocess, sys, time

DESCRIPTION = """\
Runs `nibble bench` and other programs on the same file, one after the other, N rounds, and prints medians and the ratio
to the fastest setting of each peer with its spread, as a Markdown table. Programs take llama-bench's flags
(-m -p -n -t -r -o json) and print its JSON."""
EXAMPLES = """\
examples:
  against llama.cpp and ik_llama.cpp, the latter as it comes and with repacked weights, whichever is faster:
    bench/compare.py -m model.gguf --peer llama=../llama.cpp/llama-bench \\
      --peer ik=../ik_llama.cpp/llama-bench --setting "ik=-rtr 1"
  against an earlier build of nibble, 5 rounds, failing when generation or prompts got 3 % slower:
    bench/compare.py -m model.gguf --peer before=../before/build/nibble --rounds 5 --fail-below 0.97

exit status: 0 done, 1 a ratio is below --fail-below, 2 a program failed or the machine is busy"""


class Failure(Exception):
    pass


class Program:
    """One command line with one set of flags."""

    def __init__(self, name, command, flags=""):
        self.name, self.flags = name, flags
        self.command = shlex.split(command)
        if not self.command:
            raise Failure(f"{name}: no command")
        self.is_nibble = pathlib.Path(self.command[0]).name.startswith("nibble")
        if self.is_nibble and len(self.command) == 1:
            self.command.append("bench")
        self.speeds = {}  # (threads, prompt, generate, depth) -> one number per round

    @property
    def label(self):
        return f"{self.name} {self.flags}".strip()

    def run(self, options):
        command = [*self.command, *shlex.split(self.flags), "-m", options.model, "-p", options.prompt, "-n",
                   options.generate, "-t", options.threads, "-r", str(options.repetitions), "-o", "json"]
        if options.depth != "0":
            command += ["-d", options.depth]
        if self.is_nibble:
            command.append("--no-peak")
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout)
        except OSError as error:
            raise Failure(f"{self.label}: {error}")
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.label}: no result after {options.timeout} s")
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise Failure(f"{self.label}: exit status {done.returncode}: {last}")
        for key, speed in parse(done.stdout, self.label).items():
            self.speeds.setdefault(key, []).append(speed)


def parse(text, label):
    """Tests and tokens/s of llama-bench's JSON; the median of the samples where it lists them."""
    start = text.find("[")
    try:
        rows = json.loads(text[start:]) if start >= 0 else None
    except json.JSONDecodeError as error:
        raise Failure(f"{label}: cannot read its JSON: {error}")
    if not rows:
        raise Failure(f"{label}: no results in its output")
    out = {}
    for row in rows:
        try:
            key = (int(row["n_threads"]), int(row["n_prompt"]), int(row["n_gen"]), int(row.get("n_depth") or 0))
            out[key] = float(statistics.median(row.get("samples_ts") or [row["avg_ts"]]))
        except (KeyError, TypeError, ValueError) as error:
            raise Failure(f"{label}: a result lacks {error}")
    return out


def busy_share(seconds):
    """The share of all processors' time that something else uses."""
    def read():
        fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    total, idle = read()
    time.sleep(seconds)
    total_after, idle_after = read()
    return 1 - (idle_after - idle) / max(total_after - total, 1)


def check_idle(options):
    share = busy_share(1.0) if options.max_load < 1 else 0.0
    if share > options.max_load:
        raise Failure(f"the machine is {100 * share:.0f} % busy; more than {100 * options.max_load:.0f} % spoils the "
                      "numbers (--max-load)")


def test_name(key):
    _, prompt, generate, depth = key
    name = f"pp{prompt}" if prompt and not generate else f"tg{generate}" if not prompt else f"pp{prompt}+tg{generate}"
    return name + (f" @ d{depth}" if depth else "")


def summary(ours, peers):
    """One entry per test: medians of all programs, per peer the fastest setting and the ratios to it round by round."""
    out = []
    for key in ours.speeds:
        entry = {"threads": key[0], "test": test_name(key), "ours": ours.speeds[key], "peers": {}}
        for name, settings in peers.items():
            known = [one for one in settings if key in one.speeds]
            if not known:
                continue
            best = max(known, key=lambda one: statistics.median(one.speeds[key]))
            ratios = [a / b for a, b in zip(ours.speeds[key], best.speeds[key])]
            entry["peers"][name] = {"settings": {one.label: one.speeds[key] for one in known}, "best": best.label,
                                    "ratios": ratios, "ratio": statistics.median(ratios)}
        out.append(entry)
    return out


def markdown(ours, peers, entries):
    labels = [one.label for settings in peers.values() for one in settings]
    rows = [["threads", "test", ours.label, *labels, *[f"ratio to {name} [min-max]" for name in peers]]]
    for entry in entries:
        speeds = {label: values for peer in entry["peers"].values() for label, values in peer["settings"].items()}
        row = [str(entry["threads"]), entry["test"], f"{statistics.median(entry['ours']):.2f}"]
        row += [f"{statistics.median(speeds[label]):.2f}" if label in speeds else "" for label in labels]
        for name in peers:
            peer = entry["peers"].get(name)
            row.append(f"{peer['ratio']:.2f} [{min(peer['ratios']):.2f}-{max(peer['ratios']):.2f}]" if peer else "")
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)


def named(text, what):
    name, equals, rest = text.partition("=")
    if not equals or not name.strip():
        raise Failure(f"{what} {text!r}: expected NAME=...")
    return name.strip(), rest.strip()


def arguments():
    here = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=DESCRIPTION, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-m", "--model", required=True, help="GGUF file that all of them read")
    add("--ours", default=str(here / "build/nibble"), metavar="COMMAND", help="default: build/nibble")
    add("--ours-flags", default="", metavar="FLAGS", help="further flags of ours")
    add("--peer", action="append", default=[], metavar="NAME=COMMAND", help="a program to compare with; repeatable")
    add("--setting", action="append", default=[], metavar="NAME=FLAGS",
        help="run the peer NAME with these flags too; of all its settings the fastest counts, test by test; repeatable")
    add("-p", "--prompt", default="512", metavar="N,...", help="prompt lengths (default 512)")
    add("-n", "--generate", default="128", metavar="N,...", help="tokens to generate (default 128)")
    add("-d", "--depth", default="0", metavar="N,...", help="tokens in the cache before (default 0)")
    add("-t", "--threads", default=str(len(os.sched_getaffinity(0))), metavar="N,...", help="default: all processors it may use")
    add("-r", "--repetitions", type=int, default=1, metavar="N", help="repetitions within a run (default 1)")
    add("--rounds", type=int, default=3, metavar="N", help="runs of every program (default 3)")
    add("--max-load", type=float, default=0.05, metavar="SHARE",
        help="refuse to begin a round when others use more of the processors (default 0.05; 1: do not look)")
    add("--timeout", type=float, default=3600, metavar="SECONDS", help="of one run (default 3600)")
    add("--json", metavar="FILE", help="save every number")
    add("--fail-below", type=float, metavar="RATIO", help="exit with 1 when a ratio is smaller")
    return parser.parse_args()


def main():
    options = arguments()
    ours = Program("nibble", options.ours, options.ours_flags)
    peers = {}
    commands = {}
    for text in options.peer:
        name, command = named(text, "--peer")
        commands[name] = command
        peers[name] = [Program(name, command)]
    for text in options.setting:
        name, flags = named(text, "--setting")
        if name not in peers:
            raise Failure(f"--setting {name}: there is no such --peer")
        peers[name].append(Program(name, commands[name], flags))
    if not peers:
        raise Failure("nothing to compare with: --peer NAME=COMMAND")
    if options.rounds < 1:
        raise Failure("--rounds: at least 1")
    programs = [ours] + [one for settings in peers.values() for one in settings]
    for number in range(options.rounds):
        check_idle(options)
        # Every other round backwards, so that a drift of the machine favours nobody.
        for program in programs if number % 2 == 0 else reversed(programs):
            print(f"round {number + 1} of {options.rounds}: {program.label}", file=sys.stderr)
            program.run(options)
    entries = summary(ours, peers)
    print(markdown(ours, peers, entries))
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"model": options.model, "rounds": options.rounds, "tests": entries}, out, indent=1)
            out.write("\n")
    slower = [(entry["test"], name) for entry in entries for name, peer in entry["peers"].items()
              if options.fail_below is not None and peer["ratio"] < options.fail_below]
    for test, name in slower:
        print(f"{test}: slower than {options.fail_below} x {name}", file=sys.stderr)
    return 1 if slower else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
