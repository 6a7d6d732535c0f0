package main

import (
	"errors"
	"fmt"
	"time"
)

// runTime bounds one run on either side.
const runTime = 30 * time.Second

// program is what both sides run, with the output that proves that they did.
type program struct {
	name, code, output string
}

// small is what most of the benchmark runs: it measures the way to the program
// and back, not the program.
func small() program {
	return program{name: "print(6*7)", code: "print(6*7)", output: "42\n"}
}

// pandas spends its time on the import where that is not done ahead.
func pandas() program {
	return program{
		name: "a line of pandas", code: "import pandas as pd; print(pd.DataFrame({'a': [40, 2]}).sum()['a'])", output: "42\n",
	}
}

// errWrong is an answer that is not the program's output: a benchmark of wrong
// answers is worth nothing, so it ends there.
var errWrong = errors.New("wrong answer")

// check compares what a side answered with what the program prints.
func (p program) check(exitCode int, stdout, stderr string) error {
	if exitCode == 0 && stdout == p.output && stderr == "" {
		return nil
	}
	return fmt.Errorf("%w to %s: exit code %d, stdout %.100q, stderr %.300q", errWrong, p.name, exitCode, stdout, stderr)
}

// refusal is an answer other than a result: the side did not run the program.
// Under load it is counted.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }

func (r *refusal) Unwrap() error { return r.err }
