"""One file a command: settings in, events and a result out. Here the config stops."""
