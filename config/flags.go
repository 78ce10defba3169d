package config

import "github.com/spf13/pflag"

// AddFlags adds the flags that set a key, and --config, which names the file.
func AddFlags(flags *pflag.FlagSet) {
	flags.String("config", "", "configuration file: .yaml, .toml or .json (also "+EnvFile+")")
	flags.String("listen", "", "address for clients, host:port")
	flags.String("admin", "", "address for health, metrics and status, host:port")
	flags.String("cache-dir", "", "folder that content is kept in")
	flags.String("max-size", "", "most that is kept on disk, such as 50GiB or 80%")
	flags.Bool("offline", false, "never ask any upstream")
	flags.String("log-level", "", "debug, info, warn or error")
	flags.String("log-format", "", "text or json")
}

// flagOf is the flag that sets a key, or empty.
func flagOf(path string) string {
	switch path {
	case "listen", "admin", "offline":
		return path
	case "cache.dir":
		return "cache-dir"
	case "cache.max_size":
		return "max-size"
	case "log.level":
		return "log-level"
	case "log.format":
		return "log-format"
	}
	return ""
}
