package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// runTime bounds one run on either side.
const runTime = 30 * time.Second

// program is what both sides run, with the output that proves that they did.
type program struct {
	name, code, output string
}

// programs returns the programs that -program names.
func programs() []program {
	return []program{
		// The first measures the way to the program and back, not the program.
		{"print", "print(6*7)", "42\n"},
		{"pandas", "import pandas as pd; print(pd.DataFrame({'a': [40, 2]}).sum()['a'])", "42\n"},
		{"plot", "import matplotlib.pyplot as plt; plt.plot([40, 2]); plt.savefig('plot.png'); print(6*7)", "42\n"},
		// A module that no image preloads, and that no preloaded module imports.
		{"import", "import xmlrpc.server; print(6*7)", "42\n"},
	}
}

// programNames is a flag: names of programs, separated by commas.
type programNames []program

// String implements [flag.Value].
func (n *programNames) String() string {
	var names []string
	for _, p := range *n {
		names = append(names, p.name)
	}
	return strings.Join(names, ",")
}

// Set implements [flag.Value].
func (n *programNames) Set(value string) error {
	*n = nil
	all := programNames(programs())
	for word := range strings.SplitSeq(value, ",") {
		found := false
		for _, p := range all {
			if p.name == word {
				*n, found = append(*n, p), true
			}
		}
		if !found {
			return fmt.Errorf("%q is not a program: must be of %s", word, all.String())
		}
	}
	return nil
}

// errWrong is an answer that is not the program's output: a benchmark of wrong
// answers is worth nothing, so it ends there.
var errWrong = errors.New("wrong answer")

// errMissing is the answer of a Python that lacks a module that the program imports.
var errMissing = errors.New("a module is missing")

// check compares what a side answered with what the program prints.
func (p program) check(exitCode int, stdout, stderr string) error {
	if exitCode == 0 && stdout == p.output && stderr == "" {
		return nil
	}
	reason := errWrong
	if strings.Contains(stderr, "ModuleNotFoundError") {
		reason = errMissing
	}
	return fmt.Errorf("%w to %s: exit code %d, stdout %.100q, stderr %.300q", reason, p.name, exitCode, stdout, stderr)
}

// refusal is an answer other than a result: the side did not run the program.
// Under load it is counted.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }

func (r *refusal) Unwrap() error { return r.err }
