/*
description: First and last order of each customer, from the space's own tables.
warehouse: lake
*/
SELECT i.value AS user_id,
       min(e.timestamp) AS first_order_at,
       max(e.timestamp) AS last_order_at
FROM events e
JOIN identifiers i ON i.profile_id = e.profile_id AND i.type = 'user_id'
WHERE e.event = 'Order Completed'
GROUP BY i.value
