package builtin_test

// The extensions that clients are in, which only Debian's PHP has here.
var (
	mysql     = extension("-d", "extension=mysqlnd", "-d", "extension=mysqli", "-d", "extension=pdo", "-d", "extension=pdo_mysql")
	pgsql     = extension("-d", "extension=pdo", "-d", "extension=pgsql", "-d", "extension=pdo_pgsql")
	redis     = extension("-d", "extension=igbinary", "-d", "extension=redis")
	memcached = extension("-d", "extension=msgpack", "-d", "extension=igbinary", "-d", "extension=memcached")
	curl      = extension("-d", "extension=curl")
)

// waits are the hangs of those who wait for somebody else: a real server that
// takes its time, or a port that nobody reads from.
var waits = []hang{
	{rule: "wait.mysql", at: `SELECT SLEEP`, args: mysql, server: "mysql", long: true},
	{rule: "wait.mysql", script: "wait.mysql-lock", at: `->execute(`, args: mysql, server: "mysql", long: true},
	{rule: "wait.mysql", script: "wait.mysql-fetch", at: `->fetch_row(`, args: mysql, server: "mysql", long: true},
	{rule: "wait.mysql", script: "wait.mysql-connect", at: `return new mysqli(`, args: mysql, long: true},
	{rule: "wait.mysql", script: "wait.mysql-handshake", at: `return new PDO(`, args: mysql, long: true},
	{rule: "wait.pgsql", at: `pg_sleep`, args: pgsql, server: "pgsql", long: true},
	{rule: "wait.pgsql", script: "wait.pgsql-lock", at: `->execute(`, args: pgsql, server: "pgsql", long: true},
	{rule: "wait.pgsql", script: "wait.pgsql-handshake", at: `pg_connect(`, args: pgsql, long: true},
	{rule: "wait.redis", at: `->blPop(`, args: redis, server: "redis", long: true},
	{rule: "wait.redis", script: "wait.redis-silent", at: `->get(`, args: redis, long: true},
	{rule: "wait.memcached", at: `->get(`, args: memcached, long: true},
	{rule: "wait.memcached", script: "wait.memcached-stopped", at: `->get(`, args: memcached, server: "memcached", long: true},
	{rule: "wait.http-stream", at: `file_get_contents(`},
	{rule: "wait.http-stream", script: "wait.http-stream-body", at: `file_get_contents(`},
	{rule: "wait.http-stream", script: "wait.soap", at: `__soapCall(`, args: extension("-d", "extension=soap"), long: true},
	{rule: "wait.tls-handshake", at: `stream_socket_client("ssl`, args: extension()},
	{rule: "wait.tls-handshake", script: "wait.tls-handshake-https", at: `file_get_contents(`, args: extension()},
	{rule: "wait.curl", at: `curl_exec(`, args: curl, long: true},
	{rule: "wait.curl", script: "wait.curl-multi", at: `curl_multi_select(`, args: curl, long: true},
	{rule: "wait.dns", at: `gethostbyname(`, under: "without-dns"},
	{rule: "wait.dns", script: "wait.dns-stream", at: `file_get_contents(`, under: "without-dns"},
	{rule: "wait.dns", script: "wait.dns-curl", at: `curl_exec(`, args: curl, under: "without-dns", long: true},
	{rule: "wait.stream-select", at: `stream_select(`},
}
