"""What runs inside the guest: the first process, and one child of it for each controller that connects."""
