// Command phpwhy tells why a PHP worker hangs.
package main

import (
	"context"
	"os"

	"github.com/phpwhy/phpwhy/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
