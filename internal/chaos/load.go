package main

import (
	"context"
	"errors"
	"io"
)

func runLoad(ctx context.Context, args []string, out, errs io.Writer) error {
	return errors.New("not yet")
}
