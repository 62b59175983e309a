-- Forget a job that has ended. ARGV: its name.
return cjson.encode({erase(ARGV[2])})
