-- Whether a batch of the API's is one of ours. ARGV: its id.
return cjson.encode({call('HEXISTS', P .. 'api', ARGV[2]) == 1})
