"""What the README claims of sizes and speeds, measured. Not part of the wheel.

Rules:
1. A benchmark is a module of this package with `measure(sizes) -> list[Figure]`; its docstring says what is measured
   and how. To add one: write the module, add its name to `__main__.NAMES`.
2. What runs is the product: the real processes through their command line, the real functions on real objects.
3. A missed claim is printed as MISSED and is no error; a process that does not start is one.
4. Whatever happens, every process that was started is stopped.
"""
