"""Frida on work() of a running process: `frida_probe.py PID WAY`, until standard input ends.

Ways: `replace` (a C replacement that counts and calls on), `cmodule` (a C callback at entry), `both` (at entry and
return, as for a latency), `js` (a callback in JavaScript), `many` (a C callback on each export of libcrypto).
"""

import sys
import time

import frida

HEAD = "#include <gum/guminterceptor.h>\nextern unsigned long hits;\n"
ENTER = HEAD + "void onEnter(GumInvocationContext *ic) { hits++; }\n"
C = {
    "replace": HEAD
    + "extern void *real;\nlong work(long a, long b) { hits++; return ((long (*)(long, long))real)(a, b); }",
    "cmodule": ENTER,
    "both": ENTER + "void onLeave(GumInvocationContext *ic) { hits++; }\n",
    "many": ENTER,
    "js": "",
}
MADE = """
const hits = Memory.alloc(8), real = Memory.alloc(8);
globalThis.kept = [hits, real, source && new CModule(source, {hits, real})];
const made = kept[2], at = Process.mainModule.findSymbolByName("work");
"""
JS = {
    "replace": "real.writePointer(Interceptor.replaceFast(at, made.work));",
    "cmodule": "Interceptor.attach(at, made);",
    "both": "Interceptor.attach(at, made);",
    "js": "let count = 0; Interceptor.attach(at, {onEnter() { count++; }});",
    "many": """
        let taken = 0;
        for (const one of Process.getModuleByName("libcrypto.so.3").enumerateExports())
            if (one.type === "function")
                try { Interceptor.attach(one.address, made); taken++; } catch (error) { }
        Interceptor.flush();
        send(taken);
    """,
}

pid, way = int(sys.argv[1]), sys.argv[2]
begin = time.perf_counter()
session = frida.attach(pid)
script = session.create_script(f"const source = {C[way]!r};{MADE}{JS[way]}")
script.on("message", lambda message, _data: print(message.get("payload", message), flush=True))
script.load()
print("attached after", time.perf_counter() - begin, flush=True)
sys.stdin.read()
begin = time.perf_counter()
script.unload()
session.detach()
print("detached after", time.perf_counter() - begin, flush=True)
