-- A call was refused for want of room in these accounts. ARGV: their names.
for place = 5, #ARGV do
  tell(ARGV[place], true)
end
return answer('done')
