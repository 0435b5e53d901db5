/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the IPv4 addresses of a name, by its C library's resolver. */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *found, *a;
	char text[INET6_ADDRSTRLEN];

	int err = argc == 2 ? getaddrinfo(argv[1], NULL, &hints, &found) : EAI_FAIL;
	if (err) {
		fprintf(stderr, "%s\n", gai_strerror(err));
		return 1;
	}
	for (a = found; a; a = a->ai_next)
		if (a->ai_family == AF_INET &&
		    inet_ntop(AF_INET, &((struct sockaddr_in *)a->ai_addr)->sin_addr, text, sizeof(text)))
			puts(text);
	return 0;
}
