"""What runs in a guest when the user has nothing to run: small, real, and a little of everything.

Files written, read and removed, pipes, short processes, a connection over the loopback interface, a few times a second.
"""

from __future__ import annotations

WORKLOAD = r"""
mkdir -p /tmp/work && cd /tmp/work || exit 1
n=0
while :; do
  n=$((n + 1))
  echo "line $n of the workload" > notes
  cat notes /etc/hosts /proc/self/status 2>/dev/null | grep -c o > count
  ls -l /usr/bin /etc | sort | tail -n 3 > listing
  cp listing copy && mv copy moved && rm -f moved
  dd if=/dev/zero of=block bs=4096 count=32 2>/dev/null && sync -d block 2>/dev/null; rm -f block
  if [ $((n % 4)) = 1 ]; then
    echo "hello $n" | nc -l -p 7007 -w 1 >/dev/null 2>&1 &
    usleep 30000
    nc 127.0.0.1 7007 -w 1 </dev/null >answer 2>/dev/null
  fi
  usleep 50000
done
"""
