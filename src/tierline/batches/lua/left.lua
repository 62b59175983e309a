-- Whether there is a batch that is not done, or a hold that is about to be made.
return cjson.encode({call('ZCARD', P .. 'due') + call('ZCARD', P .. 'intents') > 0})
