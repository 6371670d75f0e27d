export const COUNT = '/dev/shm/count'
export const COUNT_PORT = 8000
/**
 * A perl that counts for ever: its own name, made once, and the count. It replaces the file whole, and tells who asks at its port,
 * unless nothing is asked at once.
 */
export const COUNTER = [
  'perl',
  '-MIO::Socket::INET',
  '-e',
  `my $name = "$$-" . time; my $n = 0; $SIG{PIPE} = "IGNORE";
   my $door = IO::Socket::INET->new(Listen => 20, LocalPort => ${COUNT_PORT}, ReuseAddr => 1) or die;
   sub ready { my ($of, $seconds) = @_; my $bits = ""; vec($bits, fileno($of), 1) = 1; select($bits, undef, undef, $seconds) > 0 }
   while (1) { $n++; open(my $f, ">", "${COUNT}.new"); print $f "$name $n"; close($f);
               rename("${COUNT}.new", "${COUNT}"); next unless ready($door, 0.2);
               my $guest = $door->accept or next; next unless ready($guest, 1); sysread($guest, my $asked, 65536);
               my $text = "$name $n"; my $size = length $text;
               syswrite($guest, "HTTP/1.1 200 OK\\r\\nContent-Length: $size\\r\\nConnection: close\\r\\n\\r\\n$text"); close($guest) }`,
]
export const COUNTING = ['sh', '-c', `test -s ${COUNT}`]
