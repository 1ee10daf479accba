package run

// Logging is how a command logs. Commands that serve nothing embed it; those that serve embed [Common]. A program or a
// command that people watch chooses other defaults with the kong variables log_level and log_format.
type Logging struct {
	LogLevel  string `enum:"debug, info, warn, error" default:"${log_level=info}" help:"Least level to log: ${enum}."`
	LogFormat string `enum:"json, text" default:"${log_format=json}" help:"Format of a log line: ${enum}."`
}

// AfterApply tells Main how the selected command wants to log. Kong calls it when the settings have been read.
func (l *Logging) AfterApply(s *settings) error {
	s.logging = *l
	return nil
}

// Common are the settings that every serving command has. A program chooses its own default for the admin address
// with the kong variable admin_listen, so that several programs run on one machine without a flag.
type Common struct {
	Logging

	AdminListen Addr `default:"${admin_listen=127.0.0.1:0}" help:"Address (host:port) of the probes /livez and /readyz. Port 0 takes a free one, which the log tells."`
}

// AfterApply hands the selected command's settings to Main. Kong calls it when the settings have been read.
func (c *Common) AfterApply(s *settings) error {
	s.common = *c
	return nil
}

// settings are those of the selected command that Main itself needs.
type settings struct {
	logging Logging
	common  Common
}
