# SPDX-License-Identifier: Apache-2.0
"""Texts for HCL to judge: every HCL file of the tree, as it is and laid out badly in six ways, and every expression of the table.

    python3 texts.py TREE FOLDER
"""
import os
import random
import re
import sys

tree, folder = sys.argv[1:]
rooms = ["templates/library", "packaging", "tests/data/language/suite"]
count = 0


def write(text):
    global count
    count += 1
    with open(f"{folder}/{count:05}.hcl", "w", newline="") as file:
        file.write(text)


def in_heredoc(lines):
    """Says of each line whether it stands in a heredoc, where blanks are text."""
    marker = None
    for line in lines:
        yield line, marker is not None
        if marker and line.strip() == marker:
            marker = None
        elif not marker and (found := re.search(r"<<-?(\w+)$", line)):
            marker = found.group(1)


def disturb(text, change):
    return "".join((line if kept else change(line)) + "\n" for line, kept in in_heredoc(text.split("\n")[:-1]))


chance = random.Random(8)
changes = [
    lambda line: line.lstrip(),
    lambda line: "\t" * (len(line) - len(line.lstrip())) + line.lstrip(),
    lambda line: re.sub(r'^(\s*[\w-]+)\s+= ', r"\1=", line),
    lambda line: re.sub(r'^(\s*[\w-]+)\s+= ', r"\1    =   ", line),
    lambda line: " " * chance.randrange(9) + line.lstrip() + " " * chance.randrange(3),
    lambda line: line + " # note" * chance.randrange(2) if line.strip() else line,
]

for room in rooms:
    for where, _, names in sorted(os.walk(f"{tree}/{room}")):
        for name in sorted(names):
            if not name.endswith((".hcl", ".t", ".hcldec")):
                continue
            text = open(f"{where}/{name}", newline="").read()
            write(text)
            for change in changes:
                write(disturb(text, change))

expression = []
for line in open(f"{tree}/tests/data/language/expressions.txt"):
    if line.startswith("> "):
        expression.append(line[2:])
    elif line[:2] in ("= ", "! "):
        write("value = " + "".join(expression) if len(expression) == 1 else "value = [\n" + "".join(expression) + "]\n")
        expression = []
