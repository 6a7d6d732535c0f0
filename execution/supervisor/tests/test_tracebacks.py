"""Tests of tracebacks.py. They run in a sandbox, like any program."""

import unittest

import display
import program
import tracebacks


class TracebackTest(unittest.TestCase):
    def test_frames_of_the_supervisor_are_left_out(self) -> None:
        class Broken:
            def __repr__(self) -> str:
                raise ValueError

        try:
            program.run_codes(program.compile_program(b"show(x)", "f.py", False), {"show": self.show, "x": Broken()})
        except ValueError as error:
            trace = tracebacks.without_ours(error.__traceback__.tb_next if error.__traceback__ else None)
        names = []
        while trace is not None:
            names.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        self.assertEqual(names, ["<module>", "show", "__repr__"])

    def show(self, value: object) -> None:
        display.Display().display(value)
