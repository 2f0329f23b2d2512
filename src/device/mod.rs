//! What is known of one device, from its configuration bytes.
