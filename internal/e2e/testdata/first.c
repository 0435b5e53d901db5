/* first ADDRESS PORT SOCKET TAG: the first thing that it does is connect. Then it
 * says TAG and who answered, or TAG and the error, to a datagram socket. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	struct sockaddr_un tell = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = 20 };
	char who[128] = "", said[256];
	ssize_t n = 0, one;
	int s, u;

	if (argc != 5 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
		return 2;
	to.sin_port = htons(atoi(argv[2]));
	s = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(s, (struct sockaddr *)&to, sizeof(to)) || write(s, "x\n", 2) != 2)
		snprintf(who, sizeof(who), "%s", strerror(errno));
	else
		while (n < (ssize_t)sizeof(who) - 1 && !strchr(who, '\n') &&
		       (one = read(s, who + n, sizeof(who) - 1 - n)) > 0)
			n += one;
	if (n > 0)
		who[strcspn(who, " ")] = 0; /* the backend's address is in front */
	snprintf(said, sizeof(said), "%s %s", argv[4], who);
	strncpy(tell.sun_path, argv[3], sizeof(tell.sun_path) - 1);
	u = socket(AF_UNIX, SOCK_DGRAM, 0);
	return sendto(u, said, strlen(said), 0, (struct sockaddr *)&tell, sizeof(tell)) < 0;
}
