package persisted

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
	"github.com/vektah/gqlparser/v2/validator"
	"github.com/vektah/gqlparser/v2/validator/rules"
)

// Documents are those of a file.
type Documents struct {
	// byID has each text by the id that the file gives it, and by its hash.
	byID map[string]string
}

// has tells whether a text is one of the documents.
func (d *Documents) has(text string) bool {
	_, ok := d.byID[hash(text)]
	return ok
}

// Load reads the documents of a file, each of which must be valid and have maxTokens tokens at most.
func Load(path string, schema *ast.Schema, maxTokens int) (*Documents, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	documents, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var ids []string
	for id := range documents.byID {
		ids = append(ids, id)
	}
	slices.Sort(ids) // So that the same file fails for the same document.
	for _, id := range ids {
		if err := check(documents.byID[id], schema, maxTokens); err != nil {
			return nil, fmt.Errorf("%s: document %s, %.40q: %w", path, id, documents.byID[id], err)
		}
	}
	return documents, nil
}

// apolloFormat is what a manifest of Apollo's says that it is.
const apolloFormat = "apollo-persisted-query-manifest"

// parse reads a file: an object with the texts by their ids, or Apollo's manifest.
func parse(raw []byte) (*Documents, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("it is not UTF-8")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, errors.New("it is not a JSON object")
	}
	documents := &Documents{byID: map[string]string{}}
	if _, isManifest := members["format"]; isManifest {
		return documents, documents.addManifest(raw)
	}
	for id, member := range members {
		var text string
		if err := json.Unmarshal(member, &text); err != nil {
			return nil, fmt.Errorf("document %s is not a string", id)
		}
		if err := documents.add(id, text); err != nil {
			return nil, err
		}
	}
	return documents, documents.notEmpty()
}

func (d *Documents) addManifest(raw []byte) error {
	var manifest struct {
		Format     string
		Version    int
		Operations []struct{ ID, Body string }
	}
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return fmt.Errorf("it is not a manifest: %w", err)
	}
	if manifest.Format != apolloFormat || manifest.Version != 1 {
		return fmt.Errorf("its format is %q in version %d, not %q in version 1", manifest.Format, manifest.Version, apolloFormat)
	}
	for _, operation := range manifest.Operations {
		if err := d.add(operation.ID, operation.Body); err != nil {
			return err
		}
	}
	return d.notEmpty()
}

// add takes a document. An id that looks like a hash must be the text's own.
func (d *Documents) add(id, text string) error {
	id = strings.TrimPrefix(id, "sha256:")
	own := hash(text)
	switch known, isKnown := d.byID[id]; {
	case id == "" || text == "":
		return errors.New("a document has no id or no text")
	case isHash(id) && id != own:
		return fmt.Errorf("document %s has another SHA-256 hash, %s", id, own)
	case isKnown && known != text:
		return fmt.Errorf("document %s is there twice, with different texts", id)
	}
	d.byID[id] = text
	d.byID[own] = text
	return nil
}

func (d *Documents) notEmpty() error {
	if len(d.byID) == 0 {
		return errors.New("it has no documents, so nothing could be executed")
	}
	return nil
}

// check tells what is wrong with a document.
func check(text string, schema *ast.Schema, maxTokens int) error {
	document, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: text}, maxTokens)
	if err != nil {
		return err
	}
	if len(document.Operations) == 0 {
		return errors.New("it has no operation")
	}
	if list := validator.ValidateWithRules(schema, document, rules.NewDefaultRules()); len(list) > 0 {
		return list[0]
	}
	return nil
}
