package run

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// Invalid returns an error for a setting that is wrong, to be returned by a settings struct's Validate method, or by
// Run where only the attempt can tell. Field points to the setting's field in that struct, so the method needs a pointer
// receiver; the reason reads on from the setting's name, such as "must be at most --drain". Main prints it with the
// names of the flag and the variable, which the struct cannot know: they depend on where it is embedded.
func Invalid(field any, format string, args ...any) error {
	return &invalidError{field: field, reason: fmt.Sprintf(format, args...)}
}

// invalidError tells what is wrong with the setting that field points to.
type invalidError struct {
	field  any // A pointer.
	reason string
}

func (e *invalidError) Error() string { return e.reason }

// settingError tells what is wrong with the value of one flag.
type settingError struct {
	flag   *kong.Flag
	reason string
}

func (e *settingError) Error() string { return settingName(e.flag) + " " + e.reason }

// Parse reads settings into cli as Main does for the program called name, from arguments and from the environment, and
// runs nothing. It is for a program that runs others' services in its own process: what it decides for them are the
// arguments. Its error is one that can be shown.
func Parse(name string, cli any, args []string, vars ...kong.Vars) error {
	parser, err := newParser(name, cli, vars, kong.Bind(&settings{}))
	if err != nil {
		return fmt.Errorf("read the settings of %s: %w", name, err)
	}
	_, err = parser.parse(args)
	return err
}

// settingName returns the names under which a setting is known: "--log-level (USERS_LOG_LEVEL)".
func settingName(flag *kong.Flag) string {
	if len(flag.Envs) == 0 {
		return "--" + flag.Name
	}
	return fmt.Sprintf("--%s (%s)", flag.Name, strings.Join(flag.Envs, " or "))
}

// builtins are the flags that every program has.
type builtins struct {
	Version    versionFlag    `env:"-" help:"Print the version and exit."`
	ConfigDocs configDocsFlag `env:"-" hidden:"" help:"Print the table of settings in Markdown and exit."`
}

type versionFlag bool

// BeforeReset implements the flag before anything else is looked at, so that it works without required settings.
func (versionFlag) BeforeReset(k *kong.Kong) error {
	fmt.Fprintln(k.Stdout, buildInfo(k.Model.Name))
	k.Exit(exitOK)
	return nil
}

type configDocsFlag bool

// BeforeReset implements the flag.
func (configDocsFlag) BeforeReset(k *kong.Kong) error {
	if err := writeConfigDocs(k.Stdout, k.Model); err != nil {
		return err
	}
	k.Exit(exitOK)
	return nil
}

// parser is kong's, with errors that tell whoever set a wrong value what to change.
type parser struct {
	*kong.Kong
	// wrong are the flags whose values could not be used. Kong flattens some of its errors to text; what it says
	// about an environment variable includes the value, which may be a secret.
	wrong map[*kong.Flag]*settingError
}

func newParser(name string, cli any, vars []kong.Vars, options ...kong.Option) (*parser, error) {
	options = append(options,
		kong.Name(name),
		kong.DefaultEnvars(strings.ToUpper(strings.ReplaceAll(name, "-", "_"))),
		kong.Embed(&builtins{}),
	)
	for _, v := range vars {
		options = append(options, v)
	}
	k, err := kong.New(cli, options...)
	if err != nil {
		return nil, err
	}
	p := &parser{Kong: k, wrong: map[*kong.Flag]*settingError{}}
	err = kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok && flag != k.Model.HelpFlag {
			flag.Mapper = settingMapper{Mapper: flag.Mapper, flag: flag, wrong: p.wrong}
		}
		return next(nil)
	})
	return p, err
}

// parse reads the settings. Its error is one that can be shown: it names the setting and never holds a value that the
// setting's own type would not show.
func (p *parser) parse(args []string) (*kong.Context, error) {
	command, err := p.Parse(args)
	if err == nil {
		return command, nil
	}
	var setting *settingError
	if errors.As(err, &setting) {
		return nil, setting
	}
	var failed *kong.ParseError
	if !errors.As(err, &failed) || failed.Context == nil {
		return nil, err
	}
	if setting := p.setting(failed.Context, err); setting != nil {
		return nil, setting
	}
	flags := failed.Context.Flags()
	if errors.As(err, new(*invalidError)) {
		return nil, err
	}
	for _, flag := range flags {
		if wrong, ok := p.wrong[flag]; ok {
			return nil, wrong
		}
	}
	var missing []string
	for _, flag := range flags {
		if flag.Required && !flag.Set {
			missing = append(missing, fmt.Sprintf("%s is required: %s", settingName(flag), flag.Help))
		}
	}
	if len(missing) > 0 {
		return nil, errors.New(strings.Join(missing, "; "))
	}
	return nil, err
}

// setting returns what the error says about a setting of the command, or nil when it is about none.
func (p *parser) setting(command *kong.Context, err error) error {
	var setting *settingError
	if errors.As(err, &setting) {
		return setting
	}
	var invalid *invalidError
	if !errors.As(err, &invalid) {
		return nil
	}
	for _, flag := range command.Flags() {
		if flag.Target.CanAddr() && flag.Target.Addr().Interface() == invalid.field {
			return &settingError{flag: flag, reason: invalid.reason}
		}
	}
	return nil
}

// settingMapper decodes a flag's value as its own mapper does, from wherever it came, and says what is wrong with it.
type settingMapper struct {
	kong.Mapper
	flag  *kong.Flag
	wrong map[*kong.Flag]*settingError
}

// Decode implements kong.Mapper.
func (m settingMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	raw := ctx.Scan.Peek()
	err := m.Mapper.Decode(ctx, target)
	if err != nil {
		return m.fail(explain(err, target, raw))
	}
	if reason := enumReason(m.flag, target); reason != "" {
		return m.fail(reason)
	}
	if target.CanAddr() {
		if v, ok := target.Addr().Interface().(interface{ Validate() error }); ok {
			if err := v.Validate(); err != nil {
				return m.fail(err.Error())
			}
		}
	}
	delete(m.wrong, m.flag)
	return nil
}

func (m settingMapper) fail(reason string) error {
	err := &settingError{flag: m.flag, reason: reason}
	m.wrong[m.flag] = err
	return err
}

// IsBool implements kong.BoolMapper, so that a switch needs no value.
func (m settingMapper) IsBool() bool {
	b, ok := m.Mapper.(kong.BoolMapper)
	return ok && b.IsBool()
}

// explain says what a value of the target's type must be. A type of our own explains itself.
func explain(err error, target reflect.Value, raw kong.Token) string {
	var takes string
	switch target.Interface().(type) {
	case time.Duration:
		takes = "a duration such as 500ms, 30s or 5m"
	case bool:
		takes = "true or false"
	case int, int8, int16, int32, int64:
		takes = "a whole number"
	case uint, uint8, uint16, uint32, uint64:
		takes = "a whole number, zero or more"
	case float32, float64:
		takes = "a number"
	default:
		return err.Error()
	}
	if raw.IsEOL() {
		return fmt.Sprintf("must be %s, but has no value", takes)
	}
	return fmt.Sprintf("must be %s, but is %q", takes, raw.String())
}

// enumReason says which of a flag's few values it must have, or nothing when it has one.
func enumReason(flag *kong.Flag, target reflect.Value) string {
	if flag.Enum == "" {
		return ""
	}
	values := flag.EnumSlice()
	given := []reflect.Value{target}
	if target.Kind() == reflect.Slice {
		given = given[:0]
		for i := range target.Len() {
			given = append(given, target.Index(i))
		}
	}
	for _, v := range given {
		text := fmt.Sprint(v.Interface())
		if !flag.EnumMap()[text] {
			return fmt.Sprintf("must be one of %s, but is %q", strings.Join(values, ", "), text)
		}
	}
	return ""
}
