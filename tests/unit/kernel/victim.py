"""A program to probe, which makes as many calls as it is told."""

import subprocess


class Victim:
    """A running copy of the program; `call` makes exactly so many calls and waits for them."""

    def __init__(self, path):
        self.path = str(path)
        self.process = subprocess.Popen([self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid

    def call(self, what, count):
        self.process.stdin.write(f"{what}{count}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
