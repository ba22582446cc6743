#!/bin/sh
# Build the sample ELF files beside this script. Needs gcc, g++, binutils and xz.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
gcc -O1 -fPIC -nostdlib -nostartfiles -fcf-protection=full -shared -Wl,--build-id -Wl,-z,noseparate-code \
  -Wl,--version-script=sample.map -o libsample.so sample.c sample_two.c
# As Fedora strips: the symbols of functions go compressed into a section.
nm --defined-only --format=posix libsample.so | awk '$2 ~ /[Tti]/ {print $1}' | sed 's/@.*//' | sort -u > "$work/keep"
objcopy --strip-debug --keep-symbols="$work/keep" libsample.so "$work/mini"
xz -q "$work/mini"
strip -o libsample-debugdata.so libsample.so
objcopy --add-section .gnu_debugdata="$work/mini.xz" libsample-debugdata.so
# As Debian strips: the symbols of functions go into a file of their own.
strip -o libsample-stripped.so libsample.so
objcopy --only-keep-debug libsample.so libsample.debug
g++ -O1 -fexceptions -nostdlib -static -no-pie -Wl,-z,noseparate-code -o sample-throw sample_throw.cc
ls -l libsample* sample-throw
