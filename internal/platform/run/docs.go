package run

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// WriteConfigDocs writes the settings of the program called name as Markdown: a table for those that all of its
// commands share, then one for each command. It takes what [Main] takes. The program itself prints the same with the
// hidden flag --config-docs, which a generator can use without importing it.
func WriteConfigDocs(w io.Writer, name string, cli any, vars ...kong.Vars) error {
	parser, err := newParser(name, cli, vars)
	if err != nil {
		return fmt.Errorf("read the settings of %s: %w", name, err)
	}
	return writeConfigDocs(w, parser.Model)
}

func writeConfigDocs(w io.Writer, app *kong.Application) error {
	var docs strings.Builder
	writeNodeDocs(&docs, app.Node)
	_, err := io.WriteString(w, strings.TrimLeft(docs.String(), "\n"))
	return err
}

// writeNodeDocs writes the settings of a command and then of its subcommands.
func writeNodeDocs(docs *strings.Builder, node *kong.Node) {
	var rows []string
	for _, flag := range node.Flags {
		// Flags that no variable sets, such as --help, ask for something else than the command's work.
		if !flag.Hidden && len(flag.Envs) > 0 {
			rows = append(rows, flagRow(flag))
		}
	}
	if len(rows) > 0 {
		if node.Type == kong.CommandNode {
			fmt.Fprintf(docs, "\n### `%s`\n", node.FullPath())
			if node.Help != "" {
				fmt.Fprintf(docs, "\n%s\n", node.Help)
			}
		}
		docs.WriteString("\n| Variable | Flag | Default | Meaning |\n|---|---|---|---|\n")
		docs.WriteString(strings.Join(rows, ""))
	}
	for _, child := range node.Children {
		if !child.Hidden {
			writeNodeDocs(docs, child)
		}
	}
}

func flagRow(flag *kong.Flag) string {
	var variables []string
	for _, env := range flag.Envs {
		variables = append(variables, code(env))
	}
	value := "-"
	switch {
	case flag.Required:
		value = "**required**"
	case flag.HasDefault && flag.Default != "":
		value = code(flag.Default)
	case flag.IsBool():
		value = code("false")
	}
	return fmt.Sprintf("| %s | %s | %s | %s |\n",
		strings.Join(variables, ", "), code("--"+flag.Name), value, cell(flag.Help))
}

// code formats text as code in a table's cell.
func code(text string) string { return "`" + cell(text) + "`" }

// cell escapes what would end a table's cell or row.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}
