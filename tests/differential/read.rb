# Reads Cookie headers as Rack does: one a line in hex, one line of JSON each, {"rack": [["name", "value"], ...]} with the
# strings in hex.
require 'json'
require 'rack/utils'

def hexed(text)
  text.to_s.b.unpack1('H*')
end

STDIN.each_line do |line|
  raw = [line.chomp].pack('H*')
  read = Rack::Utils.parse_cookies_header(raw).map { |name, value| [hexed(name), hexed(value)] }
  puts JSON.generate('rack' => read)
end
