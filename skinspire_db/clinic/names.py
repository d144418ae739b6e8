"""Common Indian names, which invented people are called by. A changed list gives every random seed other people."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FEMALE = _words("""
    Aaradhya Aarti Aditi Aishwarya Akanksha Alka Amrita Anamika Ananya Anika Anita Anjali Ankita Anupama Anuradha Aparna
    Archana Arpita Asha Avani Bhavana Bhavya Chandrika Charu Chitra Daljeet Deepa Deepika Devika Diksha Divya Diya Ekta
    Esha Fatima Gargi Garima Gauri Gayatri Geeta Girija Gita Gurpreet Harini Harleen Harpreet Hema Hemlata Hina Indira
    Indu Ishita Jasleen Jaspreet Jaya Jayanti Jyoti Kalpana Kamala Kamini Kanchan Kavita Kavya Keerthi Khushi Kiran Kirti
    Komal Kritika Lakshmi Lalita Lata Lavanya Leela Madhavi Madhu Mahima Malini Mallika Manisha Manjula Mariam Meena Meera
    Megha Mitali Mona Mridula Mukta Namrata Nandini Nargis Neelam Neeta Neha Nidhi Nikita Nirmala Nisha Nithya Pallavi
    Parul Pooja Poonam Prachi Prerna Priya Priyanka Radha Radhika Rajni Rani Rashmi Rekha Renu Revathi Riya Roshni Rukmini
    Rupali Sakshi Sandhya Sangeeta Sarika Saroja Savita Seema Shabana Shalini Sharda Shikha Shilpa Shobha Shreya Shruti
    Simran Sneha Sonal Sonali Sudha Sujata Suman Sumitra Sunita Supriya Swati Tanvi Tanya Tara Trisha Uma Urmila Usha
    Vaishali Vandana Vanita Varsha Vasudha Vidya Vimala Vineeta Yamini Yashoda Zara Zeenat
""")
MALE = _words("""
    Aarav Abdul Abhay Abhijit Abhinav Abhishek Aditya Ajay Ajit Akash Akhil Akshay Alok Amar Amit Amol Anand Aniket Anil
    Anirudh Ankit Ankur Anup Arjun Arnav Arun Arvind Ashish Ashok Ashwin Atul Ayush Balaji Balwinder Bharat Bhaskar
    Brijesh Chandan Chetan Chirag Daksh Darshan Deepak Dev Devendra Dhananjay Dharmendra Dhruv Dinesh Eshan Farhan Gagan
    Ganesh Gaurav Gautam Girish Gopal Govind Gurdeep Hardik Hari Harish Harsh Hemant Hitesh Imran Inder Irfan Ishaan
    Jagdish Jai Jatin Jayesh Jitendra Joseph Kailash Kamal Karan Karthik Kartik Kishore Krishna Kunal Lalit Lokesh Madhav
    Mahesh Manish Manoj Mayank Milind Mohan Mohit Mukesh Murali Nagaraj Naresh Naveen Neeraj Nikhil Nilesh Nitin Omkar
    Pankaj Parth Pavan Piyush Prabhu Pradeep Prakash Pranav Prasad Prashant Praveen Prem Rahul Raj Rajat Rajeev Rajendra
    Rajesh Rakesh Ram Raman Ramesh Ranjit Ravi Rishi Ritesh Rohan Rohit Roshan Sachin Sagar Salman Sameer Sandeep Sanjay
    Santosh Satish Saurabh Shankar Sharad Shashank Shiv Shyam Siddharth Sohail Sourav Srinivas Subhash Sudhir Sukhwinder
    Sumit Sunil Suraj Suresh Swapnil Tarun Tejas Tushar Uday Umesh Varun Vasant Venkat Vijay Vikas Vikram Vinay Vineet
    Vinod Vipul Vishal Vivek Yash Yogesh Yusuf
""")
LAST = _words("""
    Acharya Agarwal Ahluwalia Ahmed Ahuja Ali Anand Ansari Apte Arora Babu Bajaj Bakshi Banerjee Basu Bedi Bhagat Bhalla
    Bhandari Bhardwaj Bhasin Bhat Bhatia Bhatt Bhattacharya Bhosale Biswas Bose Chakraborty Chandra Chatterjee Chaudhary
    Chauhan Chavan Chopra Choudhury Dalal Das Dasgupta Datta Desai Deshmukh Deshpande Dhillon Dixit Dubey Dutta Dwivedi
    Fernandes Gandhi Ganguly Gawde George Ghosh Gill Goel Gokhale Goswami Gowda Grover Guha Gupta Hegde Hussain Iyengar
    Iyer Jadhav Jain Jha Jose Joshi Kadam Kale Kamath Kapoor Kaul Kaur Khan Khanna Khatri Khurana Kohli Kulkarni Kumar Lal
    Lobo Madan Mahajan Malhotra Malik Mathew Mathur Meena Mehra Mehta Menon Mishra Mistry Mitra Modi Mohanty Mukherjee
    Nadar Nagpal Naidu Naik Nair Nambiar Nanda Narang Narayan Nayak Negi Pai Pal Pandey Pandit Panicker Parekh Parikh
    Patel Pathak Patil Pawar Philip Pillai Pradhan Prasad Puri Qureshi Rai Rajan Rajput Raman Rana Rane Rao Rastogi
    Rathore Rawat Ray Reddy Roy Sabharwal Sachdeva Saha Sahni Sahoo Saini Salvi Sandhu Sarkar Sawant Saxena Sen Sengupta
    Seth Sethi Shah Sharma Shenoy Shetty Shinde Shukla Sidhu Singh Sinha Sodhi Soni Sood Srivastava Subramaniam Swamy
    Talwar Tandon Thakur Thomas Tiwari Tripathi Tyagi Upadhyay Vaidya Varghese Varma Venkataraman Verma Vyas Wadhwa Walia
    Yadav
""")
