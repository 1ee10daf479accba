// Package schema holds the schema of the API, a file for each part of it, and in a folder of its own what makes it a
// subgraph of a federation.
package schema

import (
	"embed"
	"io/fs"
	"strings"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/formatter"
	"github.com/vektah/gqlparser/v2/parser"
)

//go:embed *.graphqls federation/*.graphqls
var files embed.FS

// Public returns the API's schema without federation.
func Public() *ast.Schema { return gqlparser.MustLoadSchema(sources("*.graphqls")...) }

// Subgraph returns the API's schema as a federation composes it.
//
// Each type has what the federation adds to it in its own definition: some directives hold only for the fields of the
// definition that they stand at, and an extension has none.
func Subgraph() string {
	document, err := parser.ParseSchemas(sources("*.graphqls", "federation/*.graphqls")...)
	if err != nil {
		panic(err)
	}
	for _, extension := range document.Extensions {
		definition := document.Definitions.ForName(extension.Name)
		definition.Directives = append(definition.Directives, extension.Directives...)
	}
	document.Extensions = nil
	var text strings.Builder
	formatter.NewFormatter(&text).FormatSchemaDocument(document)
	return text.String()
}

// sources returns the files that match patterns. What is wrong with them is a fault of the program, which is built with
// them.
func sources(patterns ...string) []*ast.Source {
	var list []*ast.Source
	for _, pattern := range patterns {
		names, err := fs.Glob(files, pattern)
		if err != nil {
			panic(err)
		}
		for _, name := range names {
			text, err := files.ReadFile(name)
			if err != nil {
				panic(err)
			}
			list = append(list, &ast.Source{Name: name, Input: string(text)})
		}
	}
	return list
}
